//! Labels: what may change of a snapshot after its commit, its tags and its pin. The highest sequence number
//! that counts is in force.
//!
//! A label decides what retention removes: in a repository that has a roster one counts only when a key that
//! may label has signed it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use crate::backend::{ObjectKind, ObjectName, publish_bytes};
use crate::envelope::Envelope;
use crate::ids::{ObjectId, SnapshotId};
use crate::repository::Repository;
use crate::roles::Action;
use crate::sealed::{Content, PAYLOAD_BYTES_MAX, open_object, seal_object};
use crate::signing::SignerId;
use crate::{Error, Result};

/// Numbers of labels that are drawn, where no higher one is left.
const DRAWN_NUMBERS: Range<u64> = 1 << 32..1 << 62;

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
        // A label of a key that was removed meanwhile would take the place of one that counts.
        self.refresh_keys()?;
        let busy = || Error::Busy { what: format!("the label of the snapshot {snapshot}") };
        let mut old = self.label_seqs(snapshot)?;
        if old.iter().copied().max() != seen {
            return Err(busy());
        }
        old.sort_unstable();
        let seq = self.free_number(snapshot, &old)?;
        let name = label_name(snapshot, seq)?;
        let sealed = seal_object(self.keys(), &name, self.new_object_id()?, payload)?;
        match publish_bytes(&**self.backend(), &name, &sealed) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => return Err(busy()),
            published => published?,
        }
        // A slow writer may publish a number that was used and removed before: then a higher one stands.
        if self.label_seqs(snapshot)?.into_iter().any(|other| other > seq && !old.contains(&other)) {
            self.backend().delete(&[name])?;
            return Err(busy());
        }
        // The highest goes last: where it is above the new one, it is in force until then.
        let (below, above) = old.split_at(old.partition_point(|other| *other < seq));
        let (others, last) = above.split_at(above.len().saturating_sub(1));
        for going in [&[below, others].concat()[..], last] {
            let names = going.iter().map(|seq| label_name(snapshot, *seq)).collect::<Result<Vec<_>>>()?;
            if !names.is_empty() {
                self.backend().delete(&names)?;
            }
        }
        Ok(())
    }

    /// The number of a label that takes the place of these, sorted: above the highest that counts. What
    /// counts for nothing leads no number up to where they end. Where a label that counts has the last one
    /// there is, any that was never in use: it comes into force when the others have gone.
    fn free_number(&self, snapshot: SnapshotId, old: &[u64]) -> Result<u64> {
        let mut counting = 0;
        for seq in old.iter().rev() {
            if !self.is_no_label(snapshot, *seq)? {
                counting = *seq;
                break;
            }
        }
        let mut number = counting.wrapping_add(1);
        while number == 0 || old.binary_search(&number).is_ok() {
            number = match number {
                0 | u64::MAX => self.unused_number()?,
                number => number + 1,
            };
        }
        Ok(number)
    }

    /// Drawn from where counting up does not come: caches know labels by their numbers.
    fn unused_number(&self) -> Result<u64> {
        let ObjectId(drawn) = self.new_object_id()?;
        let drawn = drawn.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Ok(DRAWN_NUMBERS.start + drawn % (DRAWN_NUMBERS.end - DRAWN_NUMBERS.start))
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

    /// Seals the label of a snapshot again under the newest keys: the one that is in force, whatever somebody
    /// has put above it. `false` when it is already, or was replaced meanwhile. One that no maintainer signed
    /// stays what it is; of what does not open, the error.
    pub(crate) fn reseal_label(&self, snapshot: SnapshotId) -> Result<bool> {
        let seqs = self.label_seqs(snapshot)?;
        let Some(label) = self.in_force(snapshot, seqs, &|signer| self.may_label(signer))? else {
            return self.read_label(snapshot).map(|_| false);
        };
        let is_written = label.epoch != self.keys().epoch() && self.write_again(snapshot, &label)?;
        match label.unsure {
            Some(seq) => self.check_label(&label_name(snapshot, seq)?).map(|()| is_written),
            None => Ok(is_written),
        }
    }

    /// Signs labels again whose signer the caller names, with the key in use: of each snapshot the one that
    /// is in force, whatever somebody has put above it. Older ones below it, which an interrupted change has
    /// left, go.
    pub(crate) fn resign_labels(&self, whose: &dyn Fn(Option<SignerId>) -> bool) -> Result<u64> {
        let mut signed = 0;
        let mut all: BTreeMap<SnapshotId, Vec<u64>> = BTreeMap::new();
        for (snapshot, seq, _) in self.label_objects()? {
            all.entry(snapshot).or_default().push(seq);
        }
        for (snapshot, seqs) in all {
            let counts = |signer| whose(signer) || self.may_label(signer);
            let Some(label) = self.in_force(snapshot, seqs.clone(), &counts)? else { continue };
            if whose(label.content.signer) {
                signed += u64::from(self.write_again(snapshot, &label)?);
            }
            let below = seqs.into_iter().filter(|seq| *seq < label.seq);
            let below = below.map(|seq| label_name(snapshot, seq)).collect::<Result<Vec<_>>>()?;
            if !below.is_empty() {
                self.backend().delete(&below)?;
            }
        }
        Ok(signed)
    }

    /// The newest label that counts, of those that stand there.
    fn in_force(
        &self,
        snapshot: SnapshotId,
        mut seqs: Vec<u64>,
        counts: &dyn Fn(Option<SignerId>) -> bool,
    ) -> Result<Option<InForce>> {
        seqs.sort_unstable_by_key(|seq| Reverse(*seq));
        let newest = seqs.first().copied();
        let mut unsure = None;
        for seq in seqs {
            let name = label_name(snapshot, seq)?;
            let read = self.backend().read(&name, PAYLOAD_BYTES_MAX).and_then(|bytes| {
                let epoch = Envelope::decode(&name.to_string(), ObjectKind::Label, &bytes)?.epoch;
                Ok((epoch, open_object(self.keys(), &name, bytes)?))
            });
            match read {
                Ok((epoch, content)) if counts(content.signer) => {
                    return Ok(Some(InForce { seq, epoch, content, newest, unsure }));
                }
                // Somebody put it there: it never was a label.
                Ok(_) | Err(Error::Missing { .. }) => {}
                Err(error) if error.concerns_one_object() => unsure = Some(seq),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Writes a label again with the same content; `false` when it was replaced meanwhile. Above what nobody
    /// who counts has signed; below what does not open, because that may have been a pin.
    fn write_again(&self, snapshot: SnapshotId, label: &InForce) -> Result<bool> {
        let payload = &label.content.payload;
        let Some(unsure) = label.unsure else {
            return match self.replace_label(snapshot, label.newest, payload) {
                Err(Error::Busy { .. }) => Ok(false),
                replaced => replaced.map(|()| true),
            };
        };
        let (old, above) = (label_name(snapshot, label.seq)?, label.seq.saturating_add(1));
        let name = if above < unsure { label_name(snapshot, above)? } else { old.clone() };
        let sealed = seal_object(self.keys(), &name, self.new_object_id()?, payload)?;
        if name == old {
            self.backend().delete(std::slice::from_ref(&old))?;
        }
        match publish_bytes(&**self.backend(), &name, &sealed) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            published => published?,
        }
        if name != old {
            self.backend().delete(&[old])?;
        }
        Ok(true)
    }

    fn may_label(&self, signer: Option<SignerId>) -> bool {
        !self.keys().is_signed() || self.keys().vouches(signer, Action::Maintain)
    }

    /// A label decides what retention removes: it counts only when a key that may label has signed it.
    fn open_label(&self, name: &ObjectName, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let content = open_object(self.keys(), name, bytes)?;
        if !self.may_label(content.signer) {
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

/// A label that counts, as it stands among others.
struct InForce {
    seq: u64,
    epoch: u32,
    content: Content,
    /// The highest number that any label of the snapshot has.
    newest: Option<u64>,
    /// The lowest number above it of what does not open: it may have been a label that counted.
    unsure: Option<u64>,
}

fn label_name(snapshot: SnapshotId, seq: u64) -> Result<ObjectName> {
    ObjectName::new(ObjectKind::Label, format!("{snapshot}-{seq:016x}"))
        .ok_or_else(|| Error::damaged("a label", "its name is none"))
}
