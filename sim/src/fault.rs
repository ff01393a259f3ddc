//! A decorator that fails: one operation, or everything from one operation on, as if the process had died
//! there.
//!
//! A batch can be torn: half of it happens, then the failure. That is what a crash inside `publish` or
//! `delete` looks like, because only single names are atomic.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use copal_store::backend::{Backend, FinishedObject, Hold, ObjectKind, ObjectName, ObjectStat, ObjectWriter};
use copal_store::{Error, Result};

use crate::recording::Operation;

/// What happens at the chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultMode {
    /// It fails with this error and does nothing; later ones succeed.
    FailOnce(io::ErrorKind),
    /// The process dies before it: it and all that follow fail and do nothing.
    CrashBefore,
    /// The process dies in the middle of it: half of a batch happens.
    CrashTorn,
    /// The process dies after it: it happened, and nobody was told.
    CrashAfter,
}

#[derive(Debug)]
struct Fault {
    /// `None`: any operation that changes something.
    operation: Option<Operation>,
    /// Operations of that kind to let pass first.
    countdown: u64,
    mode: FaultMode,
}

#[derive(Debug, Default)]
struct Plan {
    fault: Option<Fault>,
    dead: bool,
    fired: bool,
}

type Shared = Arc<Mutex<Plan>>;

fn lock(plan: &Shared) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fails as planned, and forwards everything else.
#[derive(Clone, Debug)]
pub struct FaultBackend {
    inner: Arc<dyn Backend>,
    plan: Shared,
}

/// What to do with the operation at hand.
enum Verdict {
    Pass,
    Refuse(Error),
    Half(Error),
    PassThen(Error),
}

const CHANGING: &[Operation] = &[
    Operation::Prepare,
    Operation::Create,
    Operation::Append,
    Operation::Finish,
    Operation::Publish,
    Operation::Delete,
    Operation::Hold,
    Operation::Release,
];

impl FaultBackend {
    /// Without a plan: everything passes.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner, plan: Shared::default() }
    }

    /// Plans a fault at the `nth` operation (from 1) of a kind, or of all that change something.
    pub fn plan(&self, operation: Option<Operation>, nth: u64, mode: FaultMode) {
        *lock(&self.plan) = Plan {
            fault: Some(Fault { operation, countdown: nth.saturating_sub(1), mode }),
            dead: false,
            fired: false,
        };
    }

    /// Whether the planned fault has happened.
    #[must_use]
    pub fn has_fired(&self) -> bool {
        lock(&self.plan).fired
    }

    fn verdict(&self, operation: Operation, object: &str) -> Verdict {
        verdict(&self.plan, operation, object)
    }

    fn run<T>(&self, operation: Operation, object: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        run(&self.plan, operation, object, act)
    }
}

fn injected(object: &str, kind: io::ErrorKind) -> Error {
    Error::io("failing on purpose", object, io::Error::from(kind))
}

fn verdict(plan: &Shared, operation: Operation, object: &str) -> Verdict {
    let mut plan = lock(plan);
    let died = || injected(object, io::ErrorKind::BrokenPipe);
    if plan.dead {
        return Verdict::Refuse(died());
    }
    let Some(fault) = &mut plan.fault else { return Verdict::Pass };
    let meant = match fault.operation {
        Some(chosen) => chosen == operation,
        None => CHANGING.contains(&operation),
    };
    if !meant {
        return Verdict::Pass;
    }
    if fault.countdown > 0 {
        fault.countdown -= 1;
        return Verdict::Pass;
    }
    let mode = fault.mode;
    plan.fault = None;
    plan.fired = true;
    plan.dead = !matches!(mode, FaultMode::FailOnce(_));
    match mode {
        FaultMode::FailOnce(kind) => Verdict::Refuse(injected(object, kind)),
        FaultMode::CrashBefore => Verdict::Refuse(died()),
        FaultMode::CrashTorn => Verdict::Half(died()),
        FaultMode::CrashAfter => Verdict::PassThen(died()),
    }
}

fn run<T>(plan: &Shared, operation: Operation, object: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
    match verdict(plan, operation, object) {
        Verdict::Pass => act(),
        // An operation on a single thing has no half.
        Verdict::Refuse(error) | Verdict::Half(error) => Err(error),
        Verdict::PassThen(error) => act().and(Err(error)),
    }
}

struct FaultWriter {
    inner: Box<dyn ObjectWriter>,
    plan: Shared,
    name: String,
}

#[deny(clippy::missing_trait_methods)]
impl ObjectWriter for FaultWriter {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let inner = &mut self.inner;
        run(&self.plan, Operation::Append, &self.name, || inner.append(bytes))
    }

    fn finish(self: Box<Self>) -> Result<FinishedObject> {
        let Self { inner, plan, name } = *self;
        run(&plan, Operation::Finish, &name, || inner.finish())
    }
}

struct FaultHold {
    inner: Box<dyn Hold>,
    plan: Shared,
}

#[deny(clippy::missing_trait_methods)]
impl Hold for FaultHold {
    fn name(&self) -> &ObjectName {
        self.inner.name()
    }

    fn is_current(&self) -> Result<bool> {
        run(&self.plan, Operation::IsCurrent, &self.inner.name().to_string(), || self.inner.is_current())
    }

    /// A dead process removes nothing: the inner hold is dropped, which is what the operating system does for
    /// it.
    fn release(self: Box<Self>) -> Result<()> {
        let Self { inner, plan } = *self;
        let name = inner.name().to_string();
        run(&plan, Operation::Release, &name, || inner.release())
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for FaultBackend {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn prepare(&self) -> Result<()> {
        self.run(Operation::Prepare, "the place", || self.inner.prepare())
    }

    fn create(&self, name: &ObjectName, bytes_hint: u64) -> Result<Box<dyn ObjectWriter>> {
        let inner = self.run(Operation::Create, &name.to_string(), || self.inner.create(name, bytes_hint))?;
        Ok(Box::new(FaultWriter { inner, plan: Arc::clone(&self.plan), name: name.to_string() }))
    }

    fn publish(&self, mut objects: Vec<FinishedObject>) -> Result<()> {
        match self.verdict(Operation::Publish, "a batch") {
            Verdict::Pass => self.inner.publish(objects),
            Verdict::Refuse(error) => Err(error),
            Verdict::Half(error) => {
                objects.truncate(objects.len().div_ceil(2));
                self.inner.publish(objects).and(Err(error))
            }
            Verdict::PassThen(error) => self.inner.publish(objects).and(Err(error)),
        }
    }

    fn read_range(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.run(Operation::ReadRange, &name.to_string(), || self.inner.read_range(name, offset, buffer))
    }

    fn read(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>> {
        self.run(Operation::Read, &name.to_string(), || self.inner.read(name, bytes_max))
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectStat> {
        self.run(Operation::Stat, &name.to_string(), || self.inner.stat(name))
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<ObjectStat>> {
        self.run(Operation::List, kind_name(kind), || self.inner.list(kind))
    }

    fn names(&self, kind: ObjectKind) -> Result<Vec<ObjectName>> {
        self.run(Operation::List, kind_name(kind), || self.inner.names(kind))
    }

    fn delete(&self, names: &[ObjectName]) -> Result<()> {
        match self.verdict(Operation::Delete, "a batch") {
            Verdict::Pass => self.inner.delete(names),
            Verdict::Refuse(error) => Err(error),
            Verdict::Half(error) => self.inner.delete(&names[..names.len().div_ceil(2)]).and(Err(error)),
            Verdict::PassThen(error) => self.inner.delete(names).and(Err(error)),
        }
    }

    fn hold(&self, name: &ObjectName, bytes: &[u8]) -> Result<Box<dyn Hold>> {
        let inner = self.run(Operation::Hold, &name.to_string(), || self.inner.hold(name, bytes))?;
        Ok(Box::new(FaultHold { inner, plan: Arc::clone(&self.plan) }))
    }

    fn is_held(&self, name: &ObjectName) -> Result<bool> {
        self.run(Operation::IsHeld, &name.to_string(), || self.inner.is_held(name))
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        self.run(Operation::FreeBytes, "the place", || self.inner.free_bytes())
    }
}

fn kind_name(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Config => "config",
        ObjectKind::KeySlot => "keys",
        ObjectKind::Pack => "packs",
        ObjectKind::Index => "index",
        ObjectKind::Root => "snapshots",
        ObjectKind::Label => "labels",
        ObjectKind::Condemned => "condemned",
        ObjectKind::Session => "sessions",
        ObjectKind::Lease => "leases",
        ObjectKind::Parity => "parity",
    }
}
