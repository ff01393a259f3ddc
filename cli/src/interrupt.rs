//! Ctrl-C and SIGTERM: the first one asks the engine to stop at its next safe point, the second one ends the
//! process.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::exit_code::{ExitCode, ProgramError};

/// The flag that signals set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    flag: Arc<AtomicBool>,
}

impl Interrupt {
    /// The flag, for the engine.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// From now on signals set the flag. Before it, while a person is asked something, they end the process
    /// as usual.
    pub(crate) fn arm(&self) -> Result<(), ProgramError> {
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let exit = ExitCode::Interrupted as i32;
            // The order matters: the first signal finds the flag unset and sets it, the second finds it set.
            signal_hook::flag::register_conditional_shutdown(signal, exit, self.flag())
                .and_then(|_| signal_hook::flag::register(signal, self.flag()))
                .map_err(|source| ProgramError::File { action: "listening for", path: "signals".into(), source })?;
        }
        Ok(())
    }
}
