//! Goal: keys and nonces meet once, lengths say nothing, and nothing secret is ever told. Method:
//! repositories of each suite live through everything that seals; every seal is noted, every clear byte
//! looked at, every error and `Debug` text searched.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use copal_fuzz::mutation::mutated;
use copal_sim::tree::{self, Toys};
use copal_sim::world::options;
use copal_sim::{Choices, MemoryBackend, SeededEntropy, noise};
use copal_store::check::{check_pack, check_small_objects, packs, rebuild_index, restore_config};
use copal_store::collect::{CollectOptions, collect, merge_index, reseal};
use copal_store::config::CipherSuite;
use copal_store::describe::describe;
use copal_store::entropy::Entropy;
use copal_store::envelope::ENVELOPE_BYTES;
use copal_store::fuzzing::{note_seals, seals};
use copal_store::keys::{Credential, StretchCost};
use copal_store::location::RecordKind;
use copal_store::padding::on_grid;
use copal_store::repository::{InitOptions, Repository};
use copal_store::roles::Role;
use copal_store::session::Session;
use copal_store::{Backend, ChunkId, ObjectKind, Result};

const PASSWORD: &[u8] = b"correct horse battery staple";
const LABEL: &str = "label-of-the-slot-that-is-sealed";
const CONTENT: &[u8] = b"the text of the file that nobody else may read";

/// Keeps what it drew of the length of a key, and does not show it.
struct Drawing {
    inner: SeededEntropy,
    keys: Mutex<Vec<Vec<u8>>>,
}

impl std::fmt::Debug for Drawing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Drawing(…)")
    }
}

impl Entropy for Drawing {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        self.inner.fill(buffer)?;
        if buffer.len() == 32 {
            self.keys.lock().unwrap().push(buffer.to_vec());
        }
        Ok(())
    }
}

const CHEAP: StretchCost = StretchCost { memory_kib: 8, passes: 1, lanes: 1 };

fn password() -> Credential {
    Credential::Password(zeroize::Zeroizing::new(PASSWORD.to_vec()))
}

fn init(memory: &MemoryBackend, suite: CipherSuite, seed: u64) -> (Repository, Arc<Drawing>) {
    let entropy = Arc::new(Drawing { inner: SeededEntropy::new(seed), keys: Mutex::default() });
    let options = InitOptions { suite, slot_label: LABEL.into(), ..options() };
    let made = Repository::init(Arc::new(memory.clone()), Arc::clone(&entropy) as _, &password(), &options);
    (made.unwrap(), entropy)
}

/// Seals are noted for the whole process: of tests side by side, with the same seeds, each would see the
/// others'.
static ALONE: Mutex<()> = Mutex::new(());

/// Everything that seals.
fn live(repository: &Repository, seed: u64) {
    let mut choices = Choices::new(seed);
    let mut roots = Vec::new();
    for number in 0..14 {
        let session = Session::begin(repository).unwrap();
        let mut content = tree::invent(&mut choices);
        content.insert("secret".into(), CONTENT.to_vec());
        let payload = tree::store(&session, &content, &mut choices).unwrap();
        let root = tree::new_root(repository, &format!("{seed} {number}")).unwrap();
        tree::commit(&session, root, &payload).unwrap();
        session.end().unwrap();
        repository.write_label(root.snapshot, b"one").unwrap();
        repository.write_label(root.snapshot, b"two").unwrap();
        roots.push(root);
    }
    merge_index(repository).unwrap();
    repository.delete_roots(&roots[..9]).unwrap();
    collect(repository, &Toys, CollectOptions::default()).unwrap();
    rebuild_index(repository).unwrap();
    let copy = copal_store::config::config_names()[1].clone();
    repository.backend().delete(&[copy]).unwrap();
    restore_config(repository).unwrap();
    let wrapped = repository.wrap_secret(b"context", b"a secret of an application").unwrap();
    repository.unwrap_secret(b"context", &wrapped).unwrap();
}

#[test]
fn no_two_seals_share_key_and_nonce() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    note_seals();
    for (seed, suite) in [(1, CipherSuite::Aes256Gcm), (2, CipherSuite::ChaCha20Poly1305)] {
        let (repository, _) = init(&MemoryBackend::new(), suite, seed);
        live(&repository, seed);
        for epoch in 0..2 {
            repository.rotate_keys(&password(), CHEAP, epoch).unwrap();
            live(&repository, seed + 10 * (1 + epoch as u64));
            reseal(&repository, &Toys, &mut |_, _| Ok(())).unwrap();
            for role in Role::ALL {
                let key_file = Credential::KeyFile(zeroize::Zeroizing::new([3 + epoch as u8; 32]));
                repository.add_role_slot(&key_file, "more", role, CHEAP, 0).unwrap();
            }
        }
    }
    let all = seals();
    let different: BTreeSet<_> = all.iter().map(|(key, nonce, _)| (key, nonce)).collect();
    assert_eq!(different.len(), all.len(), "a nonce was used twice under one key");
    let keys: BTreeSet<_> = all.iter().map(|(key, _, _)| key).collect();
    assert!(all.len() > 1500 && keys.len() > 300, "{} seals under {} keys prove little", all.len(), keys.len());
    println!("{} seals under {} keys", all.len(), keys.len());
}

/// Stores the same bytes cut in some way; returns the lengths of all objects by kind.
fn lengths(cuts: &[usize], seed: u64) -> BTreeMap<ObjectKind, Vec<u64>> {
    let memory = MemoryBackend::new();
    let (repository, _) = init(&memory, CipherSuite::Aes256Gcm, seed);
    let session = Session::begin(&repository).unwrap();
    let plain = noise(7, cuts.iter().sum());
    let mut rest = plain.as_slice();
    let mut writer = session.writer().unwrap();
    for cut in cuts {
        let (chunk, after) = rest.split_at(*cut);
        rest = after;
        let id: ChunkId = repository.keys().chunk_id(chunk);
        session.reserve(&id).unwrap();
        writer.store(RecordKind::Data, &id, chunk, None).unwrap();
    }
    let root = tree::new_root(&repository, "root").unwrap();
    tree::commit(&session, root, b"payload").unwrap();
    session.end().unwrap();
    let mut lengths: BTreeMap<ObjectKind, Vec<u64>> = BTreeMap::new();
    for listed in memory.objects() {
        let kind = listed.name.kind();
        let bytes = memory.read(&listed.name, 1 << 30).unwrap();
        lengths.entry(kind).or_default().push(listed.bytes);
        if matches!(kind, ObjectKind::Pack | ObjectKind::Index | ObjectKind::Root) {
            assert_eq!(on_grid(listed.bytes), listed.bytes, "{} is not on the grid", listed.name);
            // Clear are magic, kind, version, suite and id; the epoch is 0. All else is ciphertext.
            let version = if kind == ObjectKind::Pack { 1 } else { 3 };
            let clear = [b'C', b'O', b'P', b'A', b'L', 0x1a, kind as u8, version, CipherSuite::Aes256Gcm as u8];
            assert_eq!(bytes[..9], clear);
            assert_eq!(bytes[9..16], [0; 7]);
            let ones: u32 = bytes[ENVELOPE_BYTES..].iter().map(|byte| byte.count_ones()).sum();
            let bits = (bytes.len() - ENVELOPE_BYTES) as f64 * 8.0;
            let deviation = (f64::from(ones) - bits / 2.0).abs() / (bits.sqrt() / 2.0);
            assert!(deviation < 6.0, "{} holds something that is not ciphertext", listed.name);
        }
    }
    lengths
}

#[test]
fn lengths_of_chunks_show_in_no_size_and_no_clear_byte() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // 400 KiB as a few chunks, as many, as one, as uneven ones: two open packs take them at random, so
    // lengths of packs vary by their number on the grid only.
    let total = 400 << 10;
    let mut seen: BTreeMap<ObjectKind, BTreeSet<Vec<u64>>> = BTreeMap::new();
    for seed in 0..40 {
        let mut choices = Choices::new(seed);
        let mut cuts = Vec::new();
        let mut left = total;
        while left > 0 {
            let cut = (1 + choices.below(if seed % 2 == 0 { 60_000 } else { 20_000 }) as usize).min(left);
            cuts.push(cut);
            left -= cut;
        }
        for (kind, lengths) in lengths(&cuts, seed) {
            seen.entry(kind).or_default().insert(lengths);
        }
    }
    assert_eq!(seen[&ObjectKind::Root].len(), 1, "the root's length follows the cuts");
    assert!(seen[&ObjectKind::Index].len() <= 2, "lengths of the index: {:?}", seen[&ObjectKind::Index]);
    // An exact sum of plaintexts would give 40 different pairs of lengths.
    let steps: BTreeSet<u64> = seen[&ObjectKind::Pack].iter().flatten().copied().collect();
    assert!(steps.len() <= 20, "packs have {} different lengths: {steps:?}", steps.len());
}

/// In any of the ways in which bytes are printed.
fn assert_absent(text: &str, secret: &[u8], what: &str) {
    let shown = || text.chars().take(400).collect::<String>();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lower = text.to_ascii_lowercase();
    for part in secret.windows(8) {
        assert!(!lower.contains(&hex(part)), "{what} is told in hexadecimal: {}", shown());
        let list = part.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        assert!(!text.contains(&list), "{what} is told as a list: {}", shown());
        let decimal = String::from_utf8_lossy(part);
        assert!(!part.is_ascii() || !text.contains(&*decimal), "{what} is told: {}", shown());
    }
}

#[test]
fn nothing_secret_is_told_by_any_error_or_debug_text() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut texts: Vec<String> = Vec::new();
    let memory = MemoryBackend::new();
    let (repository, entropy) = init(&memory, CipherSuite::Aes256Gcm, 5);
    live(&repository, 5);
    let wrong = Credential::Password(zeroize::Zeroizing::new(b"another password".to_vec()));
    let again = |memory: &MemoryBackend, credential: &Credential| {
        Repository::open(Arc::new(memory.clone()), Arc::new(SeededEntropy::new(9)), credential)
    };
    texts.push(format!("{:?}", again(&memory, &wrong).map(drop)));
    let session = Session::begin(&repository).unwrap();
    texts.push(format!("{:?} {:?} {:?} {:?}", repository, repository.keys(), repository.config(), password()));
    texts.push(format!("{session:?} {:?} {:?}", session.roots(), repository.backend()));
    drop(session);
    // Every object damaged in many ways, and every reader's complaint.
    let names: Vec<_> = memory.objects().into_iter().map(|stat| stat.name).collect();
    for (number, name) in names.iter().enumerate() {
        let seeds = [memory.read(name, 1 << 30).unwrap()];
        for round in 0..12 {
            let fork = memory.fork();
            fork.overwrite(name, mutated(&seeds, &mut Choices::new(number as u64 * 100 + round)));
            let repository = match again(&fork, &password()) {
                Ok(repository) => repository,
                Err(error) => {
                    texts.push(format!("{error} {error:?}"));
                    continue;
                }
            };
            let mut note = |outcome: Result<()>| {
                if let Err(error) = outcome {
                    texts.push(format!("{error} {error:?}"));
                }
            };
            // A description is made to show what an object says: only its error counts here.
            note(describe(&repository, name).map(drop));
            note(repository.key_slots().map(drop));
            note(collect(&repository, &Toys, CollectOptions { dry_run: true, ..Default::default() }).map(drop));
            if let Ok(found) = check_small_objects(&repository) {
                texts.push(format!("{found:?}"));
            }
            let Ok(session) = Session::begin(&repository) else { continue };
            for root in session.roots() {
                if let Err(error) = tree::restore(&session, root) {
                    texts.push(format!("{error} {error:?}"));
                }
            }
            for pack in packs(&repository).unwrap_or_default() {
                if let Ok(report) = check_pack(&session, pack) {
                    texts.push(format!("{report:?}"));
                }
            }
        }
    }
    texts.sort_unstable();
    texts.dedup();
    assert!(texts.len() > 100, "only {} texts", texts.len());
    let keys = entropy.keys.lock().unwrap().clone();
    // The first is the master key; later ones are salts, which stand in key slots for everybody to see, and
    // secrets.
    let cutter = repository.keys().cutter_secret();
    let boundary = repository.keys().tree_boundary_key();
    for text in &texts {
        assert_absent(text, &keys[0], "the master key");
        assert_absent(text, &*cutter, "the cutter's secret");
        assert_absent(text, &*boundary, "the key of boundaries");
        for (secret, what) in [(PASSWORD, "the password"), (CONTENT, "content"), (LABEL.as_bytes(), "a label")] {
            assert_absent(text, secret, what);
        }
    }
}
