//! Labels: what may change of a snapshot after its commit, its tags and its pin. The highest sequence number
//! that counts is in force.
//!
//! A label decides what retention removes: in a repository that has a roster one counts only when a key that
//! may label has signed it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::backend::{ObjectKind, ObjectName, publish_bytes};
use crate::envelope::Envelope;
use crate::ids::SnapshotId;
use crate::repository::Repository;
use crate::roles::Action;
use crate::sealed::{PAYLOAD_BYTES_MAX, open_object, seal_object};
use crate::signing::SignerId;
use crate::{Error, Result};

impl Repository {
    /// The newest label payload of a snapshot.
    pub fn read_label(&self, snapshot: SnapshotId) -> Result<Option<Vec<u8>>> {
        let mut missed = None;
        loop {
            let Some(seq) = self.label_seqs(snapshot)?.into_iter().max() else { return Ok(None) };
            match self.read_label_at(snapshot, seq) {
                // Replaced since it was listed. One that is listed again and still not there is gone for
                // good.
                Err(Error::Missing { .. }) if missed != Some(seq) => missed = Some(seq),
                read => return read.map(Some),
            }
        }
    }

    /// A label payload by its sequence number; [`Error::Missing`] when a newer one has replaced it.
    pub fn read_label_at(&self, snapshot: SnapshotId, seq: u64) -> Result<Vec<u8>> {
        let name = label_name(snapshot, seq)?;
        self.open_label(&name, self.backend().read(&name, PAYLOAD_BYTES_MAX)?)
    }

    /// The newest label payload before a sequence number that counts: what held before somebody put one above
    /// it that does not.
    pub fn read_label_below(&self, snapshot: SnapshotId, seq: u64) -> Result<Option<Vec<u8>>> {
        let mut below: Vec<u64> = self.label_seqs(snapshot)?.into_iter().filter(|other| *other < seq).collect();
        below.sort_unstable();
        for seq in below.into_iter().rev() {
            match self.read_label_at(snapshot, seq) {
                Err(error) if error.concerns_one_object() => {}
                read => return read.map(Some),
            }
        }
        Ok(None)
    }

    /// Every snapshot that has a label, with the sequence number of the newest. One listing.
    pub fn labels(&self) -> Result<Vec<(SnapshotId, u64)>> {
        let mut newest: BTreeMap<SnapshotId, u64> = BTreeMap::new();
        for (snapshot, seq, _) in self.label_objects()? {
            let entry = newest.entry(snapshot).or_insert(seq);
            *entry = (*entry).max(seq);
        }
        Ok(newest.into_iter().collect())
    }

    /// Replaces a snapshot's label: the new one is durable before the old ones go.
    pub fn write_label(&self, snapshot: SnapshotId, payload: &[u8]) -> Result<()> {
        let newest = self.label_seqs(snapshot)?.into_iter().max();
        self.replace_label(snapshot, newest, payload)
    }

    /// Replaces the label whose sequence number the caller has seen (`None`: there was none), so that two who
    /// change labels at once never undo each other. [`Error::Busy`] when another one was written meanwhile:
    /// read it and try again.
    pub fn replace_label(&self, snapshot: SnapshotId, seen: Option<u64>, payload: &[u8]) -> Result<()> {
        self.keys().role().require(Action::Maintain)?;
        let busy = || Error::Busy { what: format!("the label of the snapshot {snapshot}") };
        let mut old = self.label_seqs(snapshot)?;
        if old.iter().copied().max() != seen {
            return Err(busy());
        }
        if seen == Some(u64::MAX) && self.is_no_label(snapshot, u64::MAX)? {
            // Nothing can be above it, and it counts for nothing.
            self.backend().delete(&[label_name(snapshot, u64::MAX)?])?;
            old.retain(|seq| *seq != u64::MAX);
        }
        let seq = old.iter().max().map_or(Some(1), |seq| seq.checked_add(1));
        let seq = seq.ok_or_else(|| Error::Limit { what: "the sequence of labels".into(), limit: u64::MAX })?;
        let name = label_name(snapshot, seq)?;
        let sealed = seal_object(self.keys(), &name, self.new_object_id()?, payload)?;
        match publish_bytes(&**self.backend(), &name, &sealed) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => return Err(busy()),
            published => published?,
        }
        // A slow writer may publish a number that was used and removed before: then a higher one stands.
        if self.label_seqs(snapshot)?.into_iter().any(|other| other > seq) {
            self.backend().delete(&[name])?;
            return Err(busy());
        }
        let old = old.into_iter().map(|seq| label_name(snapshot, seq)).collect::<Result<Vec<_>>>()?;
        if old.is_empty() { Ok(()) } else { self.backend().delete(&old) }
    }

    /// Whether a label says nothing: it does not open, or no key that may label has signed it.
    fn is_no_label(&self, snapshot: SnapshotId, seq: u64) -> Result<bool> {
        match self.read_label_at(snapshot, seq) {
            Ok(_) | Err(Error::Missing { .. } | Error::Unsupported { .. }) => Ok(false),
            Err(error) if error.is_integrity() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Removes the labels of a snapshot that is gone.
    pub fn delete_labels(&self, snapshot: SnapshotId) -> Result<()> {
        let seqs = self.label_seqs(snapshot)?;
        self.backend().delete(&seqs.into_iter().map(|seq| label_name(snapshot, seq)).collect::<Result<Vec<_>>>()?)
    }

    /// Removes labels that a deletion interrupted between root and labels has left; returns how many.
    pub fn delete_orphaned_labels(&self) -> Result<u64> {
        // A label is written when its root stands: a root that is listed after it and is not there is gone.
        let labels = self.label_objects()?;
        let roots: BTreeSet<SnapshotId> = self.roots()?.into_iter().map(|root| root.snapshot).collect();
        let orphaned: Vec<ObjectName> =
            labels.into_iter().filter(|(of, ..)| !roots.contains(of)).map(|(_, _, name)| name).collect();
        if !orphaned.is_empty() {
            self.backend().delete(&orphaned)?;
        }
        Ok(orphaned.len() as u64)
    }

    /// Checks a label as its readers do.
    pub(crate) fn check_label(&self, name: &ObjectName) -> Result<()> {
        self.open_label(name, self.backend().read(name, PAYLOAD_BYTES_MAX)?).map(drop)
    }

    /// Seals a label again under the newest keys; `false` when it is already, or was replaced meanwhile. One
    /// that no maintainer signed stays what it is.
    pub(crate) fn reseal_label(&self, snapshot: SnapshotId, seq: u64) -> Result<bool> {
        let name = label_name(snapshot, seq)?;
        let bytes = match self.backend().read(&name, PAYLOAD_BYTES_MAX) {
            Err(Error::Missing { .. }) => return Ok(false),
            read => read?,
        };
        if Envelope::decode(&name.to_string(), ObjectKind::Label, &bytes)?.epoch == self.keys().epoch() {
            return Ok(false);
        }
        let payload = self.open_label(&name, bytes)?;
        match self.replace_label(snapshot, Some(seq), &payload) {
            Err(Error::Busy { .. }) => Ok(false),
            replaced => replaced.map(|()| true),
        }
    }

    /// Signs labels again whose signer the caller names, with the key in use. Older ones below one that
    /// counts, which an interrupted change has left, go.
    pub(crate) fn resign_labels(&self, whose: &dyn Fn(Option<SignerId>) -> bool) -> Result<u64> {
        let mut signed = 0;
        let all = self.label_objects()?;
        for (snapshot, seq) in self.labels()? {
            let name = label_name(snapshot, seq)?;
            let opened = match self.backend().read(&name, PAYLOAD_BYTES_MAX) {
                Ok(bytes) => open_object(self.keys(), &name, bytes),
                Err(error) => Err(error),
            };
            match opened {
                Ok(content) if whose(content.signer) => match self.replace_label(snapshot, Some(seq), &content.payload)
                {
                    Err(Error::Busy { .. }) => {}
                    replaced => {
                        replaced?;
                        signed += 1;
                    }
                },
                Ok(_) if self.check_label(&name).is_ok() => {
                    let below = all.iter().filter(|(of, other, _)| *of == snapshot && *other < seq);
                    let below: Vec<ObjectName> = below.map(|(_, _, name)| name.clone()).collect();
                    if !below.is_empty() {
                        self.backend().delete(&below)?;
                    }
                }
                Ok(_) => {}
                Err(error) if error.concerns_one_object() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(signed)
    }

    /// A label decides what retention removes: it counts only when a key that may label has signed it.
    fn open_label(&self, name: &ObjectName, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let content = open_object(self.keys(), name, bytes)?;
        if self.keys().is_signed() && !self.keys().vouches(content.signer, Action::Maintain) {
            return Err(Error::damaged(name, "no key that may label has signed it"));
        }
        Ok(content.payload)
    }

    fn label_seqs(&self, snapshot: SnapshotId) -> Result<Vec<u64>> {
        let all = self.label_objects()?;
        Ok(all.into_iter().filter(|(of, ..)| *of == snapshot).map(|(_, seq, _)| seq).collect())
    }

    pub(crate) fn label_objects(&self) -> Result<Vec<(SnapshotId, u64, ObjectName)>> {
        let listed = self.backend().names(ObjectKind::Label)?;
        let parse = |name: ObjectName| {
            let (snapshot, seq) = name.name().split_once('-')?;
            let seq = u64::from_str_radix(seq, 16).ok().filter(|_| seq.len() == 16)?;
            Some((SnapshotId::from_hex(snapshot)?, seq, name))
        };
        Ok(listed.into_iter().filter_map(parse).collect())
    }
}

fn label_name(snapshot: SnapshotId, seq: u64) -> Result<ObjectName> {
    ObjectName::new(ObjectKind::Label, format!("{snapshot}-{seq:016x}"))
        .ok_or_else(|| Error::damaged("a label", "its name is none"))
}
