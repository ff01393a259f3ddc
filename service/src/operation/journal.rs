//! Operations on disk: one small file each, replaced as a whole, so that a killed daemon leaves each either
//! as it was or as it is.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::operation::{Operation, Task};

/// Longest record: notices are limited, results are small.
const RECORD_BYTES_MAX: u64 = 4 << 20;

/// An operation and what it has to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What clients see.
    pub operation: Operation,
    /// What to do.
    pub task: Task,
}

/// The folder of records.
#[derive(Clone, Debug)]
pub struct Journal {
    folder: PathBuf,
}

impl Journal {
    /// Opens, or makes, the folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Every record, oldest first; names of those that cannot be read come beside them, and never stop a
    /// start.
    pub fn read(&self) -> io::Result<(Vec<Record>, Vec<String>)> {
        let (mut records, mut unreadable) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => match read_record(&path) {
                    Ok(record) => records.push(record),
                    Err(error) => unreadable.push(format!("{}: {error}", path.display())),
                },
                // A write that a kill has interrupted.
                Some("new") => fs::remove_file(&path)?,
                _ => {}
            }
        }
        // Ids are UUIDs of version 7: they sort by time.
        records.sort_by(|a, b| a.operation.id.cmp(&b.operation.id));
        Ok((records, unreadable))
    }

    /// Durable when it returns.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        let path = self.path(&record.operation.id);
        let new = path.with_extension("new");
        let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_data()?;
        fs::rename(&new, &path)?;
        self.sync()
    }

    /// Forgets an operation.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }
}

fn read_record(path: &Path) -> io::Result<Record> {
    if fs::metadata(path)?.len() > RECORD_BYTES_MAX {
        return Err(io::Error::other("it is longer than a record can be"));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}
