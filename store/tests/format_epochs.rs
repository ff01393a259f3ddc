//! Goal: the page `docs/format/key-epochs.md` says what a rotation of keys writes, to the byte. Method: a
//! small repository is made and rotated with counted instead of random bytes; each fenced block on the page
//! is compared with its objects, and a repository is opened from the bytes on the page alone.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use copal_sim::memory::MemoryBackend;
use copal_store::backend::{Backend, ObjectKind, ObjectName, publish_bytes};
use copal_store::config::{CipherSuite, Parameters};
use copal_store::describe::describe;
use copal_store::entropy::{Entropy, OsEntropy};
use copal_store::keys::{Credential, StretchCost};
use copal_store::repository::{InitOptions, Repository};
use copal_store::{Result, SnapshotId};
use zeroize::Zeroizing;

/// 2026-01-01T00:00:00Z.
const NEW_YEAR: i64 = 1_767_225_600;
const SNAPSHOT: SnapshotId = SnapshotId([7; 16]);

/// The draw of number n is the byte n repeated; the first one is number 1.
#[derive(Debug, Default)]
struct CountingEntropy {
    draws: AtomicU8,
}

impl Entropy for CountingEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        buffer.fill(self.draws.fetch_add(1, Ordering::Relaxed) + 1);
        Ok(())
    }
}

fn key_file() -> Credential {
    Credential::KeyFile(Zeroizing::new([0xaa; 32]))
}

fn rotated() -> Repository {
    let options = InitOptions {
        parameters: Parameters::default(),
        suite: CipherSuite::Aes256Gcm,
        stretch: StretchCost::default(),
        slot_label: "owner".into(),
        created_seconds: NEW_YEAR,
    };
    let backend = Arc::new(MemoryBackend::new());
    let repository = Repository::init(backend, Arc::new(CountingEntropy::default()), &key_file(), &options).unwrap();
    repository.rotate_keys(&key_file(), StretchCost::default(), NEW_YEAR).unwrap();
    repository.write_label(SNAPSHOT, b"a payload").unwrap();
    repository
}

fn dump(bytes: &[u8], from: usize) -> String {
    let lines = bytes.chunks(32).enumerate();
    lines.map(|(number, line)| format!("{:04x}  {}\n", from + number * 32, hex::encode(line))).collect()
}

fn blocks() -> BTreeMap<String, String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/format/key-epochs.md");
    let page = fs::read_to_string(page).unwrap();
    let fenced = page.split("```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap());
    fenced.map(|(info, content)| (info.to_owned(), content.to_owned())).collect()
}

/// What an object is called on the page, by its name.
fn title(name: &ObjectName) -> &'static str {
    match (name.kind(), name.name()) {
        (ObjectKind::Label, _) => "label",
        (_, name) if name.starts_with("roster-") => "roster",
        (_, name) if name.contains('-') => "grant",
        _ => "slot",
    }
}

#[test]
fn the_page_says_what_a_rotation_writes() {
    let repository = rotated();
    let mut expected = BTreeMap::new();
    for kind in [ObjectKind::KeySlot, ObjectKind::Label] {
        for listed in repository.backend().list(kind).unwrap() {
            let name = listed.name;
            let title = title(&name);
            if name.name().ends_with("-copy") {
                continue;
            }
            let bytes = repository.backend().read(&name, 1 << 20).unwrap();
            let shown = match title {
                // Between the header and the tag all is ciphertext.
                "label" => format!("{}{}", dump(&bytes[..96], 0), dump(&bytes[bytes.len() - 32..], bytes.len() - 32)),
                _ => dump(&bytes, 0),
            };
            let doubled = expected.insert(format!("hex {title}"), format!("{name}\n{shown}"));
            assert!(doubled.is_none(), "two objects are a {title}");
            if title == "slot" {
                let fields = describe(&repository, &name).unwrap().fields;
                let lines = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
                expected.insert("text slot".into(), lines);
            }
        }
    }
    assert_eq!(expected.len(), 5);
    let found = blocks();
    let differing: String = expected
        .iter()
        .filter(|(info, content)| found.get(*info) != Some(content))
        .map(|(info, content)| format!("```{info}\n{content}```\n"))
        .collect();
    assert!(differing.is_empty(), "docs/format/key-epochs.md should say:\n{differing}");
    assert_eq!(found.len(), expected.len(), "the page has blocks that nothing checks");
}

#[test]
fn a_repository_opens_from_the_bytes_on_the_page() {
    let made = rotated();
    let backend = MemoryBackend::new();
    backend.prepare().unwrap();
    for kind in [ObjectKind::Config, ObjectKind::Label] {
        for listed in made.backend().list(kind).unwrap() {
            publish_bytes(&backend, &listed.name, &made.backend().read(&listed.name, 1 << 20).unwrap()).unwrap();
        }
    }
    for title in ["slot", "grant", "roster"] {
        let block = blocks()[&format!("hex {title}")].clone();
        let (name, lines) = block.split_once('\n').unwrap();
        let bytes: Vec<u8> =
            lines.lines().flat_map(|line| hex::decode(line.split_once("  ").unwrap().1).unwrap()).collect();
        let name = ObjectName::new(ObjectKind::KeySlot, name.strip_prefix("keys/").unwrap()).unwrap();
        publish_bytes(&backend, &name, &bytes).unwrap();
    }
    let repository = Repository::open(Arc::new(backend), Arc::new(OsEntropy), &key_file()).unwrap();
    assert_eq!(repository.keys().epoch(), 1);
    assert_eq!(repository.read_label(SNAPSHOT).unwrap().as_deref(), Some(&b"a payload"[..]));
}
