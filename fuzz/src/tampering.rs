//! Sealed data that was altered anywhere is never accepted.

use copal_sim::tree;
use copal_store::check::check_pack;
use copal_store::describe::describe;
use copal_store::session::Session;
use copal_store::{Backend, ObjectKind, ObjectName, PackId};

use crate::objects::{open, sample};

/// Which object (2 bytes), how (1), where (4), then bytes: one object is altered. It must not be taken for
/// sound, and whatever is read elsewhere is right or an error.
pub fn tampering(data: &[u8]) {
    let Some((head, bytes)) = data.split_first_chunk::<7>() else { return };
    let memory = sample().memory.fork();
    let sealed = |object: &ObjectName| !matches!(object.kind(), ObjectKind::Session | ObjectKind::Lease);
    let objects: Vec<ObjectName> = memory.objects().into_iter().map(|stat| stat.name).filter(sealed).collect();
    let name = &objects[usize::from(u16::from_le_bytes([head[0], head[1]])) % objects.len()];
    let old = memory.read(name, 1 << 30).expect("the sample can be read");
    let at = u32::from_le_bytes([head[3], head[4], head[5], head[6]]) as usize % old.len();
    let mut new = old.clone();
    match head[2] % 5 {
        0 => new[at] ^= 1 << (head[3] % 8),
        1 => {
            for (byte, value) in new[at..].iter_mut().zip(bytes) {
                *byte ^= value;
            }
        }
        2 => new.truncate(at),
        3 => new.extend_from_slice(bytes),
        _ => {
            // Another object of the same kind under this name.
            let same: Vec<&ObjectName> = objects.iter().filter(|other| other.kind() == name.kind()).collect();
            new = memory.read(same[at % same.len()], 1 << 30).expect("the sample can be read");
        }
    }
    if new == old {
        return;
    }
    memory.overwrite(name, new);
    let Ok(repository) = open(&memory) else {
        assert!(matches!(name.kind(), ObjectKind::KeySlot | ObjectKind::Config), "{name} keeps the repository shut");
        return;
    };
    assert!(is_noticed(&repository, name), "{name} was altered and is taken for sound");
    for (root, content) in &sample().roots {
        let Ok(session) = Session::begin(&repository) else { continue };
        if let Ok(found) = tree::restore(&session, root) {
            assert!(found == *content, "a snapshot has other bytes");
        }
    }
}

fn is_noticed(repository: &copal_store::repository::Repository, name: &ObjectName) -> bool {
    let pack = (name.kind() == ObjectKind::Pack).then(|| PackId::from_hex(name.name())).flatten();
    match pack {
        None => describe(repository, name).is_err(),
        Some(pack) => {
            let session = Session::begin(repository).expect("a pack stops no session");
            !check_pack(&session, pack).is_ok_and(|report| report.damaged.is_empty())
        }
    }
}

/// Every way of altering.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    (0..60u8)
        .map(|number| [&[number, 0, number, number.wrapping_mul(7), number, 0, 0][..], b"bytes"].concat())
        .collect()
}
