//! Goal: when a repository is closed, its keys are no longer in memory. Method: this process opens one, works
//! with it, drops it, and then reads its own memory, looking for the master key and what is derived from it.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use copal_sim::MemoryBackend;
use copal_store::Result;
use copal_store::backend::{Backend, ObjectKind};
use copal_store::config::CipherSuite;
use copal_store::entropy::Entropy;
use copal_store::keys::Credential;
use copal_store::repository::Repository;
use copal_store::roles::Role;
use support::{chunks, gc, key_file, options, read, snapshot};

/// Remembers what is drawn, inverted, so that it is not what is looked for.
#[derive(Debug, Default)]
struct Remembering {
    inverted: Mutex<Vec<Vec<u8>>>,
}

impl Entropy for Remembering {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        let mut inverted = self.inverted.lock().unwrap();
        // Pseudo-random: of plainer patterns a secret was the inverse of a salt, which is kept inverted here.
        let draw = inverted.len() as u64;
        blake3::Hasher::new().update(&draw.to_le_bytes()).finalize_xof().fill(buffer);
        inverted.push(buffer.iter().map(|byte| !byte).collect());
        Ok(())
    }
}

/// How often the inverse of a pattern stands in memory that can be written.
fn occurrences(inverted: &[Vec<u8>]) -> Vec<usize> {
    let memory = File::open("/proc/self/mem").unwrap();
    let mut found = vec![0; inverted.len()];
    let maps: Vec<String> =
        BufReader::new(File::open("/proc/self/maps").unwrap()).lines().map(|l| l.unwrap()).collect();
    let mut page = vec![0u8; 1 << 20];
    for line in maps {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        if !rights.starts_with("rw") || line.contains("[v") {
            continue;
        }
        let (begin, end) = range.split_once('-').unwrap();
        let (mut at, end) = (u64::from_str_radix(begin, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        while at < end {
            let count = page.len().min((end - at) as usize);
            let Ok(read) = memory.read_at(&mut page[..count], at) else { break };
            for (number, pattern) in inverted.iter().enumerate() {
                found[number] += page[..read]
                    .windows(pattern.len())
                    .filter(|window| window.iter().zip(pattern).all(|(byte, inverse)| *byte == !inverse))
                    .count();
            }
            if read == 0 {
                break;
            }
            // Overlapping, so that nothing is missed between two pages.
            at += if (at + read as u64) < end { read as u64 - 32 } else { read as u64 };
        }
    }
    page.fill(0);
    found
}

/// Makes a repository, rotates its keys, and works with it; returns the secrets, inverted: the master key
/// first, then the derived ones, then what else was drawn and stands in no object.
///
/// Never part of its caller's frame, which nothing overwrites.
#[inline(never)]
fn work(entropy: &Arc<Remembering>) -> Vec<Vec<u8>> {
    let memory = MemoryBackend::new();
    let suite = options(CipherSuite::ChaCha20Poly1305);
    let made = Repository::init(Arc::new(memory.clone()), Arc::clone(entropy) as _, &key_file(), &suite).unwrap();
    drop(made);
    let open = || Repository::open(Arc::new(memory.clone()), Arc::clone(entropy) as _, &key_file()).unwrap();
    let repository = open();
    let root = snapshot(&repository, "one", &chunks(0..5));
    read(&repository, &root).unwrap();
    gc(&repository);
    let mut shown = inverted_objects(&memory);
    repository.rotate_keys(&key_file(), suite.stretch, 0).unwrap();
    drop(repository);
    let repository = open();
    let root = snapshot(&repository, "two", &chunks(3..9));
    read(&repository, &root).unwrap();
    let narrow = Credential::KeyFile(zeroize::Zeroizing::new([24; 32]));
    repository.add_role_slot(&narrow, "narrow", Role::Read, suite.stretch, 0).unwrap();
    let reader = Repository::open(Arc::new(memory.clone()), Arc::clone(entropy) as _, &narrow).unwrap();
    read(&reader, &root).unwrap();

    let drawn = entropy.inverted.lock().unwrap().clone();
    let mut inverted = vec![drawn[0].clone()];
    inverted.push(repository.keys().cutter_secret().iter().map(|byte| !byte).collect());
    inverted.push(repository.keys().tree_boundary_key().iter().map(|byte| !byte).collect());
    assert!(occurrences(&inverted).iter().all(|count| *count > 0), "an open repository holds its keys");
    shown.extend(inverted_objects(&memory));
    let is_shown = |one: &[u8]| shown.iter().any(|bytes| bytes.windows(32).any(|window| window == one));
    inverted.extend(drawn[1..].iter().filter(|one| one.len() == 32 && !is_shown(one)).cloned());
    inverted
}

/// What stands in a repository's `keys/`, inverted.
fn inverted_objects(memory: &MemoryBackend) -> Vec<Vec<u8>> {
    let listed = memory.list(ObjectKind::KeySlot).unwrap();
    let read = |name| memory.read(name, 1 << 20).unwrap();
    listed.iter().map(|object| read(&object.name).iter().map(|byte| !byte).collect()).collect()
}

/// Overwrites what returned functions left on the stack.
#[inline(never)]
fn scrub_stack() {
    let mut room = [0u8; 1 << 20];
    std::hint::black_box(&mut room);
    room.fill(0x11);
    std::hint::black_box(&mut room);
}

#[test]
fn keys_leave_memory_with_the_repository() {
    let inverted = work(&Arc::default());
    scrub_stack();
    assert!(inverted.len() == 6, "{} secrets", inverted.len());
    assert_eq!(occurrences(&inverted), vec![0; inverted.len()], "copies of each secret");
}
