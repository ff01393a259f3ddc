//! `copal key`: the passwords and keys that open the repository. Data is never rewritten for them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use copal_engine::{Clock, Context, known_keys};
use copal_manifest::entry::Timestamp;
use copal_store::backend::ObjectName;
use copal_store::collect::{ResealReport, at_work};
use copal_store::keys::{Credential, KeySlotInfo, StretchCost};
use copal_store::roles::Role;
use copal_store::rotation::Rotation;
use copal_store::{Error as StoreError, ObjectId};
use serde_json::{Value, json};

use crate::environment::SystemClock;
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::output::{Align, Table};
use crate::password::{Ask, CredentialFlags, NEW, obtain};
use crate::shown::{count, escaped, rfc3339, time};

/// Lists, adds, changes and removes the passwords and keys that open the repository
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal key list
  copal key add --label anna
  copal key change
  copal key remove anna")]
pub(crate) struct Arguments {
    /// Take the list of keys over from a command that holds it and does not let go; what that command was
    /// doing ends without effect
    #[arg(long, global = true)]
    take_over: bool,
    #[command(subcommand)]
    action: Action,
}

impl Arguments {
    /// Whether it is not only a look.
    pub(crate) fn changes_something(&self) -> bool {
        !matches!(self.action, Action::List)
    }
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists the key slots
    #[command(after_help = "Examples:\n  copal key list\n  copal key list --json")]
    List,
    /// Adds a password or key
    #[command(after_help = "\
Examples:
  copal key add --label anna                             asks for the new password
  copal key add --label robot --new-key-file /etc/copal/key
  copal key add --label web1 --role create --new-key-file web1.key     after `key rotate --reseal`

A key file has 32 random bytes: head -c 32 /dev/urandom > FILE && chmod 600 FILE")]
    Add {
        /// What people call it
        #[arg(long, default_value = "", value_name = "TEXT")]
        label: String,
        /// What its holder may do; all but full need `copal key rotate` once before
        #[arg(long, value_enum, default_value_t, value_name = "ROLE")]
        role: RoleName,
        #[command(flatten)]
        new: NewCredential,
    },
    /// Replaces the password or key that opens the repository now
    #[command(after_help = "\
Examples:
  copal key change                                       asks for the old and the new password
  copal key change --new-password-file /etc/copal/password.new

It waits for commands that are at work: what they store is signed with the old one, and is then
signed again with the new one.")]
    Change {
        #[command(flatten)]
        new: NewCredential,
        /// Do not wait for commands at work; their snapshots then count as of a key that was removed
        #[arg(long)]
        no_wait: bool,
    },
    /// New keys for all that is stored from now on
    #[command(after_help = "\
Examples:
  copal key rotate                                       after somebody has left
  copal key rotate --reseal                              and seals again what is stored already

Every slot that is there is given the new keys. Whoever had one that was removed has them not.")]
    Rotate {
        /// Seal again what is stored under earlier keys; it reads and writes all of it
        #[arg(long)]
        reseal: bool,
    },
    /// Seals again what is stored under earlier keys; goes on where it was interrupted
    #[command(after_help = "Examples:\n  copal key reseal")]
    Reseal,
    /// Removes a password or key; the last one stays
    #[command(after_help = "Examples:\n  copal key remove anna\n  copal key remove 5c1d")]
    Remove {
        /// Label, id, or the beginning of an id
        #[arg(value_name = "SLOT")]
        slot: String,
    },
}

/// Roles, as they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum RoleName {
    /// Everything, keys included
    #[default]
    Full,
    /// Takes snapshots and reads nothing, not even what it wrote
    Create,
    /// Reads everything and changes nothing
    Read,
    /// Lists, labels, removes and collects; opens no file contents
    Maintain,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Full => Self::Full,
            RoleName::Create => Self::Create,
            RoleName::Read => Self::Read,
            RoleName::Maintain => Self::Maintain,
        }
    }
}

#[derive(Debug, Args)]
struct NewCredential {
    /// File whose content is the new password [env: COPAL_NEW_PASSWORD_FILE; the password itself:
    /// COPAL_NEW_PASSWORD]
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// Command, given to the shell, that prints the new password [env: COPAL_NEW_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND")]
    new_password_command: Option<OsString>,
    /// File of 32 random bytes, instead of a password [env: COPAL_NEW_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
}

impl NewCredential {
    fn flags(&self) -> CredentialFlags {
        CredentialFlags {
            password_file: self.new_password_file.clone(),
            password_command: self.new_password_command.clone(),
            key_file: self.new_key_file.clone(),
        }
    }
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let context = invocation.open()?;
    if arguments.take_over && arguments.changes_something() {
        for lease in context.repository.take_leases_over()? {
            context.monitor.notice(&format!("took {lease} over from the process that held it"));
        }
    }
    let done = change(arguments, &context, invocation);
    if let Err(error) = &done
        && matches!(error.downcast_ref(), Some(StoreError::Busy { .. }))
        && !arguments.take_over
    {
        context
            .monitor
            .notice("where no other command is at work, --take-over takes the list of keys from who holds it");
    }
    done
}

fn change(arguments: &Arguments, context: &Context, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    match &arguments.action {
        Action::List => list(context, invocation)?,
        Action::Add { label, role, new } => {
            let id = add(context, label, (*role).into(), &obtain(&new.flags(), NEW, Ask::Twice)?)?;
            known_keys::remember(context.state_folder.as_deref(), &context.repository);
            say(invocation, &format!("added the key slot {id}"), json!({ "added": id.to_string() }))?;
        }
        Action::Change { new, no_wait } => {
            let slots = context.repository.key_slots()?;
            let old = slots.iter().find(|slot| slot.current);
            let old = old.ok_or_else(|| ProgramError::KeySlot("the key slot in use is gone".into()))?;
            // The new one is durable before the old one goes: at no moment is nobody let in. And it is the
            // new one that removes the old one, because it signs what the old one has signed.
            let credential = obtain(&new.flags(), NEW, Ask::Twice)?;
            if !no_wait {
                wait_for(context, &at_work(&context.repository, None)?)?;
            }
            let id = add(context, &old.label, old.role, &credential)?;
            let replacing = invocation.open_at(context.repository.backend().clone(), &credential)?;
            let mut signed = replacing.replace_key_slot(old.id, now())?;
            if !no_wait {
                // Begun since it was looked. Whoever begins from now on has the new list of keys.
                wait_for(context, &at_work(&replacing, None)?)?;
                signed += replacing.sign_again_of_replaced(old.id)?;
            }
            known_keys::remember(context.state_folder.as_deref(), &replacing);
            let document =
                json!({ "added": id.to_string(), "removed": old.id.to_string(), "snapshots_signed_again": signed });
            let signed = match signed {
                0 => String::new(),
                number => format!("; {} signed again", count(number, "snapshot was", "snapshots were")),
            };
            say(invocation, &format!("replaced the key slot {} by {id}{signed}", old.id), document)?;
        }
        Action::Rotate { reseal } => {
            let credential = invocation.credential(Ask::Once)?;
            let rotation = rotate(context, &credential, now())?;
            let slots = count(rotation.slots as u64, "slot has", "slots have");
            let sentence = format!("key epoch {} begins; {slots} its keys", rotation.epoch);
            let mut document = json!({ "epoch": rotation.epoch, "slots": rotation.slots });
            let mut rotated = context.clone();
            if let Some((old, new)) = rotation.replaced {
                document["replaced"] = json!({ "removed": old.to_string(), "added": new.to_string() });
                rotated.repository = invocation.open_at(context.repository.backend().clone(), &credential)?;
            }
            known_keys::remember(context.state_folder.as_deref(), &rotated.repository);
            if *reseal {
                let resealed = resealed(&rotated)?;
                document["resealed"] = figures_of(resealed);
                say(invocation, &format!("{sentence}; {}", sentence_of(resealed)), document)?;
            } else {
                say(invocation, &sentence, document)?;
            }
        }
        Action::Reseal => {
            let resealed = resealed(context)?;
            say(invocation, &sentence_of(resealed), figures_of(resealed))?;
        }
        Action::Remove { slot } => {
            let slots = context.repository.key_slots()?;
            let (id, sentence) = match (chosen(&slots, slot), ObjectId::from_hex(slot)) {
                // In no list of keys, and to be named in full: whoever planted it named it.
                (Err(_), Some(stray)) => (stray, format!("removed {stray}, which was in no list of keys")),
                (slot, _) => slot.map(|slot| (slot.id, format!("removed the key slot {}", described(slot))))?,
            };
            context.repository.remove_key_slot(id, now())?;
            known_keys::remember(context.state_folder.as_deref(), &context.repository);
            say(invocation, &sentence, json!({ "removed": id.to_string() }))?;
        }
    }
    Ok(ExitCode::Done)
}

/// How often commands at work are looked for.
const LOOK_EACH: Duration = Duration::from_millis(200);

/// Waits until commands have ended that are at work, with whichever key: what they store is signed by the key
/// that they have begun with.
fn wait_for(context: &Context, working: &[ObjectName]) -> anyhow::Result<()> {
    if working.is_empty() {
        return Ok(());
    }
    let number = count(working.len() as u64, "command that is", "commands that are");
    context.monitor.notice(&format!(
        "waits for {number} at work with the repository; with --no-wait their snapshots count as of a removed key"
    ));
    while !at_work(&context.repository, Some(working))?.is_empty() {
        context.check_interrupt()?;
        std::thread::sleep(LOOK_EACH);
    }
    Ok(())
}

/// Rotates. An error also says which keys are in force after it.
fn rotate(context: &Context, credential: &Credential, now: i64) -> anyhow::Result<Rotation> {
    let before = context.repository.key_epochs()?.len();
    let failed = match context.repository.rotate_keys(credential, StretchCost::default(), now) {
        Ok(rotation) => return Ok(rotation),
        Err(error) => anyhow::Error::new(error),
    };
    Err(match context.repository.key_epochs() {
        Ok(epochs) if epochs.len() > before => failed.context("the new keys are in force, but not all was written"),
        Ok(_) => failed.context("the keys were not rotated, and those in use stay in force"),
        Err(_) => failed,
    })
}

fn resealed(context: &Context) -> anyhow::Result<ResealReport> {
    Ok(copal_engine::removal::reseal(context)?)
}

fn figures_of(report: ResealReport) -> Value {
    let ResealReport { packs, fragments, roots, labels, packs_waiting, unopened } = report;
    json!({
        "packs": packs,
        "fragments": fragments,
        "roots": roots,
        "labels": labels,
        "packs_waiting": packs_waiting,
        "unopened": unopened,
    })
}

fn sentence_of(report: ResealReport) -> String {
    let mut sentence = format!(
        "sealed again: {}, {}, {}",
        count(report.packs, "pack", "packs"),
        count(report.fragments, "index fragment", "index fragments"),
        count(report.roots, "snapshot", "snapshots")
    );
    if report.packs_waiting > 0 {
        let waiting = count(report.packs_waiting, "old pack waits", "old packs wait");
        sentence.push_str(&format!("; {waiting} for running commands, and go with the next `copal gc`"));
    }
    if report.unopened > 0 {
        let unopened = count(report.unopened, "object does not open and was", "objects do not open and were");
        sentence.push_str(&format!("; {unopened} not sealed again: `copal verify` says more"));
    }
    sentence
}

fn add(context: &Context, label: &str, role: Role, credential: &Credential) -> anyhow::Result<ObjectId> {
    Ok(context.repository.add_role_slot(credential, label, role, StretchCost::default(), now())?)
}

/// Seconds since 1970-01-01 UTC.
fn now() -> i64 {
    SystemClock::new().now().seconds
}

fn say(invocation: &mut Invocation, sentence: &str, document: Value) -> Result<(), ProgramError> {
    if invocation.output.is_json() { invocation.output.document(&document) } else { invocation.output.line(sentence) }
}

/// A slot by its label, its id or the beginning of that.
fn chosen<'s>(slots: &'s [KeySlotInfo], named: &str) -> Result<&'s KeySlotInfo, ProgramError> {
    let labelled: Vec<_> = slots.iter().filter(|slot| slot.label == named).collect();
    let beginning: Vec<_> = slots.iter().filter(|slot| slot.id.to_string().starts_with(named)).collect();
    let found = if labelled.is_empty() && !named.is_empty() { beginning } else { labelled };
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(ProgramError::KeySlot(format!("no key slot is called {named:?}"))),
        several => Err(ProgramError::KeySlot(format!("{named:?} names {} key slots", several.len()))),
    }
}

fn described(slot: &KeySlotInfo) -> String {
    let label = escaped(slot.label.as_bytes());
    if label.is_empty() { slot.id.to_string() } else { format!("{label} ({})", slot.id) }
}

fn list(context: &Context, invocation: &mut Invocation) -> anyhow::Result<()> {
    let slots = context.repository.key_slots()?;
    // What counts for nothing is said, because somebody may have put it there for a purpose.
    for strange in context.repository.strange_key_objects()? {
        let (object, detail) = (escaped(strange.object.as_bytes()), escaped(strange.detail.as_bytes()));
        context.monitor.notice(&format!("{object} counts for nothing: {detail}"));
    }
    let output = &mut invocation.output;
    let kind = |slot: &KeySlotInfo| if slot.key_file { "key-file" } else { "password" };
    let created = |slot: &KeySlotInfo| Timestamp { seconds: slot.created_seconds, nanoseconds: 0 };
    if output.is_json() {
        for slot in &slots {
            output.element(&json!({
                "id": slot.id.to_string(),
                "label": slot.label,
                "kind": kind(slot),
                "role": slot.role.name(),
                "key": slot.signer.map(|signer| signer.to_string()),
                "created": rfc3339(created(slot)),
                "current": slot.current,
            }))?;
        }
        return Ok(output.end_array()?);
    }
    output.line(count(slots.len() as u64, "key slot", "key slots"))?;
    let mut table = Table::new(&[
        ("ID", Align::Left),
        ("LABEL", Align::Left),
        ("KIND", Align::Left),
        ("ROLE", Align::Left),
        ("CREATED (UTC)", Align::Left),
        ("", Align::Left),
    ]);
    for slot in &slots {
        table.row(vec![
            slot.id.to_string().into(),
            escaped(slot.label.as_bytes()).into(),
            kind(slot).into(),
            slot.role.name().into(),
            time(created(slot)).into(),
            if slot.current { "opened the repository now" } else { "" }.into(),
        ]);
    }
    Ok(output.table(&table)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn slot(first: u8, label: &str) -> KeySlotInfo {
        let id = ObjectId([first; 16]);
        KeySlotInfo {
            id,
            signer: None,
            label: label.into(),
            key_file: false,
            role: Role::Full,
            created_seconds: 0,
            current: false,
        }
    }

    #[test]
    fn a_slot_is_named_by_label_or_the_beginning_of_its_id() {
        let slots = [slot(0xaa, "anna"), slot(0xab, "bert"), slot(0xcc, ""), slot(0xdd, "twice"), slot(0xde, "twice")];
        assert_eq!(chosen(&slots, "bert").unwrap().id, slots[1].id);
        assert_eq!(chosen(&slots, "aa").unwrap().id, slots[0].id);
        assert_eq!(chosen(&slots, "").unwrap().id, slots[2].id);
        for named in ["a", "twice", "nobody", "ff"] {
            assert!(chosen(&slots, named).is_err(), "{named}");
        }
    }
}
