//! What the process is given: the clock, the user's folders, the host's name, variables. The only reader of
//! them.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use copal_engine::Clock;
use copal_manifest::entry::Timestamp;

/// The surroundings of one run.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    /// For what can be rebuilt; `None` without a home, or when others may write there.
    pub(crate) cache_folder: Option<PathBuf>,
    /// For what the user has set; `None` without a home.
    pub(crate) config_folder: Option<PathBuf>,
    /// For local state; `None` without a home, or when others may write there.
    pub(crate) state_folder: Option<PathBuf>,
    /// Why local state is not used although it is there.
    pub(crate) state_fault: Option<String>,
    /// This machine.
    pub(crate) host: String,
    /// Who runs this.
    pub(crate) user: String,
}

impl Environment {
    pub(crate) fn of_process() -> Self {
        let state_folder = user_folder("XDG_STATE_HOME", ".local/state");
        // What stands there is carried out with the rights of whoever runs this: after `sudo`, perhaps, in
        // the home of another user.
        let state_fault = state_folder.as_deref().and_then(copal_engine::state::fault);
        let cache_folder = user_folder("XDG_CACHE_HOME", ".cache");
        Self {
            cache_folder: cache_folder.filter(|folder| copal_engine::state::fault(folder).is_none()),
            config_folder: user_folder("XDG_CONFIG_HOME", ".config"),
            state_folder: state_folder.filter(|_| state_fault.is_none()),
            state_fault,
            host: variable("COPAL_HOST").map_or_else(
                || rustix::system::uname().nodename().to_string_lossy().into_owned(),
                |host| host.to_string_lossy().into_owned(),
            ),
            user: user(),
        }
    }
}

/// The user's name; where the system knows none, his number, as in a container without a list of users.
fn user() -> String {
    let id = uzers::get_current_uid();
    let name = uzers::get_user_by_uid(id).map(|user| user.name().to_string_lossy().into_owned());
    name.filter(|name| !name.chars().any(char::is_control)).unwrap_or_else(|| id.to_string())
}

/// A variable; an empty one counts as absent.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// As the XDG Base Directory Specification has it: a relative path in the variable is ignored.
fn user_folder(name: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    let base = variable(name)
        .and_then(absolute)
        .or_else(|| variable("HOME").and_then(absolute).map(|home| home.join(below_home)))?;
    Some(base.join("copal"))
}

/// The system's clocks.
#[derive(Debug)]
pub(crate) struct SystemClock {
    started: Instant,
}

impl SystemClock {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let (since, before) = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => (since, false),
            Err(error) => (error.duration(), true),
        };
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        // A clock before 1970 is wrong anyway: whole seconds will do.
        if before {
            Timestamp { seconds: -seconds, nanoseconds: 0 }
        } else {
            Timestamp { seconds, nanoseconds: since.subsec_nanos() }
        }
    }

    fn monotonic_nanoseconds(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
