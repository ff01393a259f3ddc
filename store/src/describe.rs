//! What an object says, field by field: for the pages of `docs/format/`, which a test compares with this, and
//! for a person who has to know what a file holds. Reads only.

use crate::backend::{ObjectKind, ObjectName};
use crate::collect::condemned;
use crate::config::{CONFIG_BYTES_MAX, Config};
use crate::envelope::Envelope;
use crate::grants::KeyObject;
use crate::ids::{ObjectId, PackId};
use crate::index::Fragment;
use crate::location::{Encoding, Location};
use crate::pack::PackOpener;
use crate::repository::Repository;
use crate::roster::ROSTER_BYTES_MAX;
use crate::sealed::{Content, HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX, PartsOpener, open_object};
use crate::slots::{SLOT_BYTES_MAX, describe_slot};
use crate::{Error, Result};

/// An object, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its fields by name, in the order in which they are stored.
    pub fields: Vec<(String, String)>,
    /// What was sealed, without padding: the payload, or the directory of an object of parts.
    pub plain: Vec<u8>,
}

/// Collects fields.
#[derive(Default)]
pub(crate) struct Fields {
    fields: Vec<(String, String)>,
}

impl Fields {
    pub(crate) fn add(&mut self, name: impl Into<String>, value: impl ToString) {
        self.fields.push((name.into(), value.to_string()));
    }

    pub(crate) fn add_debug(&mut self, name: impl Into<String>, value: impl std::fmt::Debug) {
        self.add(name, format!("{value:?}"));
    }
}

/// Opens and describes one object. What it does not verify it does not describe: an error is that of every
/// other reader.
pub fn describe(repository: &Repository, name: &ObjectName) -> Result<Description> {
    let mut fields = Fields::default();
    let plain = match name.kind() {
        ObjectKind::Session | ObjectKind::Lease => {
            // Held by an open file: it has a name and no content.
            repository.backend().read(name, 0)?
        }
        ObjectKind::Config => {
            let bytes = repository.backend().read(name, CONFIG_BYTES_MAX)?;
            add_envelope(&mut fields, name, &bytes)?;
            Config::describe(repository.keys(), &bytes, &mut fields)?
        }
        ObjectKind::KeySlot => {
            let is_roster = matches!(KeyObject::parse(name), Some(KeyObject::Roster(_)));
            let bytes_max = if is_roster { ROSTER_BYTES_MAX } else { SLOT_BYTES_MAX };
            let bytes = repository.backend().read(name, bytes_max)?;
            add_envelope(&mut fields, name, &bytes)?;
            match is_roster {
                true => repository.keys().describe_roster(name, &bytes, &mut fields)?,
                false => describe_slot(repository.keys(), name, &bytes, &mut fields)?,
            }
        }
        ObjectKind::Pack | ObjectKind::Index => {
            let directory = read_directory(repository, name, &mut fields)?;
            match name.kind() {
                ObjectKind::Pack => add_records(repository, name, &mut fields)?,
                _ => add_entries(repository, name, &mut fields)?,
            }
            directory
        }
        ObjectKind::Parity => {
            let bytes = repository.backend().read(name, PAYLOAD_BYTES_MAX)?;
            add_envelope(&mut fields, name, &bytes)?;
            crate::parity::describe(name, &bytes, &mut fields)?
        }
        ObjectKind::Root | ObjectKind::Label | ObjectKind::Condemned => {
            let bytes = repository.backend().read(name, PAYLOAD_BYTES_MAX)?;
            add_envelope(&mut fields, name, &bytes)?;
            let Content { payload, signer } = open_object(repository.keys(), name, bytes)?;
            if let Some(signer) = signer {
                fields.add("signer", signer);
            }
            if name.kind() == ObjectKind::Condemned {
                condemned::describe(name, &payload, &mut fields)?;
            }
            payload
        }
    };
    Ok(Description { fields: fields.fields, plain })
}

fn add_envelope(fields: &mut Fields, name: &ObjectName, bytes: &[u8]) -> Result<()> {
    let envelope = Envelope::decode(&name.to_string(), name.kind(), bytes)?;
    fields.add("kind", envelope.kind as u8);
    fields.add("format version", envelope.version);
    fields.add_debug("suite", envelope.suite);
    if envelope.epoch > 0 {
        fields.add("key epoch", envelope.epoch);
        fields.add_debug("sealing", envelope.sealing);
    }
    fields.add("object id", envelope.id);
    Ok(())
}

fn read_directory(repository: &Repository, name: &ObjectName, fields: &mut Fields) -> Result<Vec<u8>> {
    let backend = repository.backend();
    let mut header = [0; HEADER_BYTES_MAX];
    backend.read_range(name, 0, &mut header)?;
    add_envelope(fields, name, &header)?;
    let opener = PartsOpener::new(repository.keys(), name, id_of(name)?, &header)?;
    let (directory, at) = opener.read_directory(&**backend, name, backend.stat(name)?.bytes)?;
    fields.add("directory offset", at);
    Ok(directory)
}

fn add_records(repository: &Repository, name: &ObjectName, fields: &mut Fields) -> Result<()> {
    let pack = PackId(id_of(name)?.0);
    let trailer = PackOpener::read_trailer(repository.keys(), &**repository.backend(), pack)?;
    fields.add_debug("record kind", trailer.kind);
    for (number, record) in trailer.records.iter().enumerate() {
        let base = record.base.map(|base| format!(", base {base}")).unwrap_or_default();
        let encoding = encoding_name(record.encoding);
        let (offset, stored, plain) = (record.offset, record.stored_bytes, record.plain_bytes);
        fields.add(
            format!("record {number}"),
            format!("offset {offset}, stored {stored}, plain {plain}, {encoding}{base}"),
        );
        for (id, bytes) in &record.members {
            fields.add("  member", format!("{id}, {bytes} bytes"));
        }
    }
    Ok(())
}

fn add_entries(repository: &Repository, name: &ObjectName, fields: &mut Fields) -> Result<()> {
    let backend = &**repository.backend();
    let fragment = Fragment::open(backend, repository.keys(), &backend.stat(name)?)?;
    for (role, key) in [("author", fragment.author()), ("signer", fragment.signer())] {
        if let Some(key) = key {
            fields.add(role, key);
        }
    }
    for (number, (pack, kind)) in fragment.packs().iter().enumerate() {
        fields.add(format!("pack {number}"), format!("{pack}, {kind:?}"));
    }
    for (number, (first, offset, stored)) in fragment.blocks().iter().enumerate() {
        fields.add(format!("block {number}"), format!("offset {offset}, stored {stored}, first id {first}"));
    }
    fields.add("filter", hex::encode(fragment.filter()));
    fragment.for_each(backend, &mut |number, id, location| {
        fields.add(format!("entry {number}"), id);
        fields.add("  place", place(&location));
        Ok(())
    })
}

fn place(location: &Location) -> String {
    let Location { pack, record_offset, record_stored_bytes, record_plain_bytes, inner_offset, bytes, .. } = location;
    let encoding = encoding_name(location.encoding);
    let base = location.base.map(|base| format!(", base {base}")).unwrap_or_default();
    format!(
        "pack {pack}, record at {record_offset}, stored {record_stored_bytes}, plain {record_plain_bytes}, \
         {encoding}, chunk at {inner_offset}, {bytes} bytes{base}"
    )
}

fn encoding_name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Raw => "raw",
        Encoding::Zstd => "zstd",
        Encoding::Delta => "delta",
    }
}

fn id_of(name: &ObjectName) -> Result<ObjectId> {
    ObjectId::from_hex(name.name()).ok_or_else(|| Error::damaged(name, "its name is no id"))
}
