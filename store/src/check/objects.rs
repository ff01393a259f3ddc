//! Verification of the objects beside packs and roots: each is opened wholly.

use crate::backend::{ObjectKind, ObjectName, ObjectStat, publish_bytes};
use crate::check::Damage;
use crate::collect::condemned;
use crate::config::{CONFIG_BYTES_MAX, Config, config_name, config_names};
use crate::index::Fragment;
use crate::repository::Repository;
use crate::rotation::check_key_object;
use crate::{Error, Result};

/// Checks every byte of every index fragment.
pub fn check_index(repository: &Repository) -> Result<Vec<Damage>> {
    each(repository, ObjectKind::Index, "index", &mut |listed| {
        let backend = &**repository.backend();
        Fragment::open(backend, repository.keys(), listed)?.check(backend)
    })
}

/// Checks configuration, key slots, labels and sentences of collection.
pub fn check_small_objects(repository: &Repository) -> Result<Vec<Damage>> {
    let mut damaged = Vec::new();
    for name in config_names() {
        damaged.extend(damage("config", name.name(), config_outcome(repository, &name))?);
    }
    damaged.extend(each(repository, ObjectKind::KeySlot, "key", &mut |listed| {
        check_key_object(repository, &listed.name)
    })?);
    let strange = repository.strange_key_objects()?.into_iter().filter(|strange| !strange.is_leftover);
    damaged.extend(strange.map(|strange| {
        Damage::new("key", strange.object.rsplit('/').next().unwrap_or_default(), strange.detail, Vec::new())
    }));
    damaged.extend(each(repository, ObjectKind::Label, "label", &mut |listed| repository.check_label(&listed.name))?);
    damaged.extend(each(repository, ObjectKind::Condemned, "condemned", &mut |listed| {
        condemned::check(repository, &listed.name)
    })?);
    Ok(damaged)
}

/// Writes the configuration, or its copy, where it does not open or is missing; returns what was written. Of
/// the two one is sound at every moment, or none was.
pub fn restore_config(repository: &Repository) -> Result<Vec<String>> {
    let mut restored = Vec::new();
    let sound = sound_config(repository)?;
    for name in config_names() {
        let outcome = match repository.backend().stat(&name) {
            Ok(_) => config_outcome(repository, &name),
            Err(error) => Err(error),
        };
        if damage("config", name.name(), outcome)?.is_some() {
            repository.backend().delete(std::slice::from_ref(&name))?;
            publish_bytes(&**repository.backend(), &name, &sound)?;
            restored.push(name.to_string());
        }
    }
    Ok(restored)
}

/// The bytes of the configuration or of its copy. Its key and nonce are the same each time, so it is not
/// sealed again where one of the two is sound: another program could seal other features with them.
fn sound_config(repository: &Repository) -> Result<Vec<u8>> {
    if let Some(signed) = repository.keys().signed_config() {
        return Ok(signed);
    }
    for name in config_names() {
        if let Ok(bytes) = repository.backend().read(&name, CONFIG_BYTES_MAX)
            && Config::open(repository.keys(), &bytes).is_ok()
        {
            return Ok(bytes);
        }
    }
    repository.config().seal(repository.keys())
}

/// A copy that is missing is no damage: the first repositories had none.
fn config_outcome(repository: &Repository, name: &ObjectName) -> Result<()> {
    let read = repository.backend().read(name, CONFIG_BYTES_MAX);
    let opened = read.and_then(|bytes| Ok((Config::open(repository.keys(), &bytes)?, bytes)));
    match opened {
        Ok((_, bytes)) if repository.keys().signed_config().is_some_and(|signed| signed != bytes) => {
            Err(Error::damaged(name, "it is not the configuration that the owners of the repository have signed"))
        }
        Ok((config, _)) if config == *repository.config() => Ok(()),
        Ok(_) => Err(Error::damaged(name, "it is not that of this repository")),
        // Where the owners have signed what it is, somebody has put a newer program's, or his own, there.
        Err(Error::Unsupported { .. }) if repository.keys().signed_config().is_some() => {
            Err(Error::damaged(name, "it is not the configuration that the owners of the repository have signed"))
        }
        Err(Error::Missing { .. }) if *name != config_name() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Opens each object of a kind; one that vanished since it was listed was replaced or carried out.
fn each(
    repository: &Repository,
    kind: ObjectKind,
    shown: &'static str,
    open: &mut dyn FnMut(&ObjectStat) -> Result<()>,
) -> Result<Vec<Damage>> {
    let mut damaged = Vec::new();
    for listed in repository.backend().list(kind)? {
        let outcome = match open(&listed) {
            Err(Error::Missing { .. }) => Ok(()),
            outcome => outcome,
        };
        damaged.extend(damage(shown, listed.name.name(), outcome)?);
    }
    Ok(damaged)
}

fn damage(kind: &'static str, id: &str, outcome: Result<()>) -> Result<Option<Damage>> {
    match outcome {
        Ok(()) => Ok(None),
        Err(error) => Damage::of(kind, id, error, Vec::new()).map(Some),
    }
}
