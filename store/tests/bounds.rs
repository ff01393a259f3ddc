//! Goal: what is read from outside cannot make a reader take more memory or time than its bytes pay for,
//! (C6). Method: each limit is met from both sides. Memory has a file of its own.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use copal_sim::{Disk, Process};
use copal_store::backend::{OBJECT_NAME_BYTES_MAX, ObjectKind, ObjectName, publish_bytes};
use copal_store::encoding::{Decoder, Encoder};
use copal_store::keys::{SLOTS_MAX, StretchCost};
use copal_store::local::LocalBackend;
use copal_store::location::{CHUNK_BYTES_MAX, Encoding, FRAME_BYTES_MAX, RecordKind};
use copal_store::pack::FRAME_MEMBERS_MAX;
use copal_store::session::{Reservation, Session};
use copal_store::{Backend, ChunkId, Error};
use support::{in_memory, init, key_file};

fn is_limit<T>(outcome: copal_store::Result<T>) -> bool {
    matches!(outcome, Err(Error::Limit { .. }))
}

#[test]
fn names_are_bounded() {
    assert!(ObjectName::new(ObjectKind::Label, "a".repeat(OBJECT_NAME_BYTES_MAX)).is_some());
    for bad in ["", "A", "a/b", "a.b", "..", "a\0", "ä", &"a".repeat(OBJECT_NAME_BYTES_MAX + 1)] {
        assert!(ObjectName::new(ObjectKind::Label, bad).is_none(), "{bad:?}");
    }
}

#[test]
fn objects_longer_than_their_kind_are_refused_unread() {
    let disk = Disk::new();
    let process = Process::new(&disk);
    let backend = Arc::new(LocalBackend::on(std::path::Path::new("/repository"), process.files()));
    let repository = init(backend.clone(), 1);
    for (kind, bytes) in [(ObjectKind::KeySlot, 5 << 20), (ObjectKind::Label, 65 << 20)] {
        let name = match kind {
            ObjectKind::Label => format!("{}-{:016x}", "00".repeat(16), 1),
            _ => "roster-000000ff".to_owned(),
        };
        let name = ObjectName::new(kind, name).unwrap();
        publish_bytes(&*backend, &name, &vec![7; bytes]).unwrap();
        let outcome = match kind {
            ObjectKind::Label => repository.read_label(copal_store::SnapshotId([0; 16])).map(drop),
            _ => {
                assert_eq!(repository.key_slots().unwrap().len(), 1, "it locks nobody out");
                let strange = repository.strange_key_objects().unwrap();
                Err(Error::damaged(&strange[0].object, &strange[0].detail))
            }
        };
        assert!(matches!(&outcome, Err(Error::Damaged { detail, .. }) if detail.contains("more than")), "{outcome:?}");
        backend.delete(&[name]).unwrap();
    }
}

#[test]
fn slots_are_bounded_in_number_and_in_cost() {
    let (_, repository) = in_memory(1);
    let cheap = StretchCost { memory_kib: 8, passes: 1, lanes: 1 };
    for number in 1..SLOTS_MAX {
        repository.add_key_slot(&key_file(), &format!("{number}"), cheap, 0).unwrap();
    }
    assert!(is_limit(repository.add_key_slot(&key_file(), "one more", cheap, 0)));
    let (_, repository) = in_memory(2);
    assert!(is_limit(repository.add_key_slot(&key_file(), &"l".repeat(256), cheap, 0)));
    repository.add_key_slot(&key_file(), &"l".repeat(255), cheap, 0).unwrap();
}

#[test]
fn records_are_bounded_in_length_and_members() {
    let (_, repository) = in_memory(1);
    let session = Session::begin(&repository).unwrap();
    let mut writer = session.writer().unwrap();
    let store = |writer: &mut copal_store::session::ChunkWriter<'_>, bytes: usize| {
        let plain = vec![bytes as u8; bytes];
        let id = repository.keys().chunk_id(&plain);
        assert_eq!(session.reserve(&id).unwrap(), Reservation::Mine);
        writer.store(RecordKind::Data, &id, &plain, None)
    };
    store(&mut writer, CHUNK_BYTES_MAX as usize).unwrap();
    assert!(is_limit(store(&mut writer, CHUNK_BYTES_MAX as usize + 1)));
    let members = |count: usize, bytes: u32| vec![(ChunkId([1; 32]), bytes); count];
    let plain = vec![0; FRAME_BYTES_MAX as usize + 2];
    assert!(is_limit(writer.store_frame(&members(2, FRAME_BYTES_MAX / 2 + 1), &plain)));
    assert!(is_limit(writer.store_frame(&members(FRAME_MEMBERS_MAX + 1, 1), &plain[..FRAME_MEMBERS_MAX + 1])));
}

#[test]
fn decompression_stops_at_the_stated_length() {
    let bomb = vec![0; CHUNK_BYTES_MAX as usize];
    let mut payload = Vec::new();
    let encoding = Encoder::new(19).unwrap().encode(&bomb, None, &mut payload).unwrap();
    assert!(encoding == Encoding::Zstd && payload.len() < 2000, "a bomb of {} bytes", payload.len());
    for stated in [0, 1, 1000, CHUNK_BYTES_MAX - 1] {
        let mut out = Vec::new();
        assert!(Decoder::new().unwrap().decode(encoding, &payload, None, stated, &mut out).is_err(), "{stated}");
        assert!(out.capacity() <= stated as usize + 64, "{stated} stated, {} taken", out.capacity());
    }
    let mut out = Vec::new();
    Decoder::new().unwrap().decode(encoding, &payload, None, CHUNK_BYTES_MAX, &mut out).unwrap();
    assert_eq!(out, bomb);
}
