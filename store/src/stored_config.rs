//! The configuration and its copy as they stand in the storage, and which of them counts.
//!
//! The key of the configuration is everybody's. What counts is what the owners have signed: their roster has
//! the object, byte for byte. Nothing here changes anything.

use crate::backend::{Backend, ObjectKind};
use crate::config::{CONFIG_BYTES_MAX, CipherSuite, Config, config_names};
use crate::envelope::Envelope;
use crate::ids::RepositoryId;
use crate::keys::Keys;
use crate::{Error, Result};

/// A configuration object whose envelope decodes.
pub(crate) struct StoredConfig {
    envelope: Envelope,
    pub(crate) bytes: Vec<u8>,
}

/// The configuration and its copy, those that are sound as far as can be told without a key.
pub(crate) struct Configs {
    pub(crate) readable: Vec<StoredConfig>,
    /// All of them seem to be a newer program's.
    pub(crate) newer: Option<Error>,
}

/// One that cannot be read stands for nothing while the other one can.
pub(crate) fn read_configs(backend: &dyn Backend) -> Result<Configs> {
    let mut readable = Vec::new();
    let (mut missing, mut sound) = (0, false);
    let mut problem = None;
    for name in config_names() {
        let bytes = match backend.read(&name, CONFIG_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) => {
                missing += usize::from(matches!(error, Error::Missing { .. }));
                problem = problem.or(Some(error));
                continue;
            }
        };
        // A feature that nobody here knows, or a flipped bit in the name of one: the key tells.
        match (Config::peek(&bytes), Envelope::decode("config", ObjectKind::Config, &bytes)) {
            (Ok(envelope), _) => {
                sound = true;
                readable.push(StoredConfig { envelope, bytes });
            }
            (Err(error), envelope) => {
                readable.extend(envelope.ok().map(|envelope| StoredConfig { envelope, bytes }));
                let is_worse = error.is_unsupported() && !problem.as_ref().is_some_and(Error::is_unsupported);
                problem = if is_worse { Some(error) } else { problem.or(Some(error)) };
            }
        }
    }
    match problem {
        _ if missing == config_names().len() => Err(Error::NotARepository { place: backend.place() }),
        Some(error) if readable.is_empty() => Err(error),
        Some(error) if !sound && error.is_unsupported() => Ok(Configs { readable, newer: Some(error) }),
        _ => Ok(Configs { readable, newer: None }),
    }
}

/// Opens with the first of the configuration and its copy that verifies and is what the owners have signed.
/// Where neither is, somebody has changed both: then with what the owners' roster itself has. A repository
/// whose owners have not signed it yet is opened with the first that verifies.
pub(crate) fn open_config(
    ring: impl Fn(CipherSuite, RepositoryId) -> Keys,
    configs: &[StoredConfig],
) -> Result<(Keys, Config, Vec<u8>)> {
    let (mut damage, mut problem, mut signed) = (None, None, None);
    for StoredConfig { envelope, bytes } in configs {
        let repository = RepositoryId(envelope.id.0);
        let keys = ring(envelope.suite, repository);
        let opened = Config::open(&keys, bytes);
        let learned = keys.learn().map(|()| keys.signed_config());
        match (opened, learned) {
            (_, Ok(Some(object))) if object != *bytes => signed = signed.or(Some((repository, object))),
            (Ok(config), Ok(_)) => return Ok((keys, config, bytes.clone())),
            (Ok(_), Err(error)) => problem = problem.or(Some(error)),
            (Err(error), _) if error.is_integrity() => damage = damage.or(Some(error)),
            (Err(error), _) => problem = problem.or(Some(error)),
        }
    }
    let Some((repository, object)) = signed else {
        return Err(problem.or(damage).unwrap_or_else(|| Error::Missing { object: "config".into() }));
    };
    let envelope = Envelope::decode("config", ObjectKind::Config, &object)?;
    let keys = ring(envelope.suite, repository);
    let config = Config::open(&keys, &object)?;
    keys.learn()?;
    Ok((keys, config, object))
}
