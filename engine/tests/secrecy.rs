//! Goal: who has the repository's files and not its key learns nothing but what
//! `docs/assurance/threat-model.md` lists. Method: a snapshot of marked names, contents, attributes and tags;
//! every byte of the repository is searched for the marks; what follows an envelope must look like noise, and
//! every length must be on the grid.
#![allow(clippy::unwrap_used)]

mod deploy_support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use copal_engine::create::{CreateRequest, SourceRequest, create};
use copal_store::envelope::ENVELOPE_BYTES;
use deploy_support::{World, noise};

/// In every name and value that a snapshot keeps.
const MARK: &[u8] = b"quagga-7141";
/// What `config` says in the clear.
const CLEAR_CONFIG: &[&str] = &["deltas", "frames", "prolly-tree", "condemned-packs", "held-sessions"];

fn plant_marked(root: &Path) {
    let name = |more: &str| root.join(format!("{}{more}", String::from_utf8_lossy(MARK)));
    fs::create_dir_all(name("-folder")).unwrap();
    let text: Vec<u8> = MARK.iter().copied().cycle().take(200_000).collect();
    fs::write(name("-large.txt"), &text).unwrap();
    fs::write(name("-small.txt"), MARK).unwrap();
    // Nothing shortens it: it is stored raw, and sealed.
    let mut incompressible = noise(9, 300_000);
    incompressible[150_000..150_000 + MARK.len()].copy_from_slice(MARK);
    fs::write(name("-noise"), incompressible).unwrap();
    symlink(String::from_utf8_lossy(MARK).as_ref(), name("-link")).unwrap();
    xattr::set(name("-small.txt"), "user.quagga-7141", MARK).unwrap();
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            files.extend(files_below(&path));
        } else {
            assert_eq!(mode, 0o600, "{}", path.display());
            files.push(path);
        }
    }
    files
}

fn snapshot(world: &World, name: &str, source: &Path) {
    let mark = String::from_utf8_lossy(MARK);
    let request = CreateRequest {
        name: format!("{mark}-{name}"),
        app: format!("{mark}-app"),
        sources: vec![SourceRequest { label: format!("{mark}-label"), path: source.to_owned() }],
        tags: vec![(format!("{mark}-key"), format!("{mark}-value"))],
        ..CreateRequest::default()
    };
    create(&world.context, &request).unwrap();
}

fn repository_of_marks() -> (World, Vec<PathBuf>) {
    let world = World::new();
    let source = world.path("quagga-7141-source");
    fs::create_dir(&source).unwrap();
    plant_marked(&source);
    snapshot(&world, "first", &source);
    // A second one has deltas and a label.
    fs::write(source.join("quagga-7141-noise"), noise(9, 300_000)).unwrap();
    snapshot(&world, "second", &source);
    let files = files_below(&world.path("repository"));
    (world, files)
}

#[test]
fn no_name_and_no_content_is_readable() {
    let (_world, files) = repository_of_marks();
    assert!(files.len() >= 8, "{files:?}");
    for file in &files {
        let bytes = fs::read(file).unwrap();
        let found = bytes.windows(MARK.len()).any(|window| window == MARK);
        assert!(!found, "{} has the mark", file.display());
        assert!(!file.to_string_lossy().contains("repository/quagga"), "{}", file.display());
    }
}

/// Chi-square of the byte counts: 255 degrees of freedom, standard deviation 22.6. Clear lengths, zeros or
/// text push it far beyond.
fn looks_like_noise(bytes: &[u8]) -> bool {
    let mut counts = [0u64; 256];
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let expected = bytes.len() as f64 / 256.0;
    let chi: f64 = counts.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
    let longest_run = bytes.chunk_by(|a, b| a == b).map(<[u8]>::len).max().unwrap_or(0);
    chi < 255.0 + 10.0 * 22.6 && longest_run < 8
}

#[test]
fn after_the_envelope_all_is_noise() {
    let (_world, files) = repository_of_marks();
    let mut judged = 0;
    for file in files {
        let bytes = fs::read(&file).unwrap();
        if bytes.len() >= 4096 {
            judged += 1;
            assert!(looks_like_noise(&bytes[ENVELOPE_BYTES..]), "{}", file.display());
        }
    }
    assert!(judged >= 8, "{judged} objects");
    // The judge itself.
    assert!(looks_like_noise(&noise(1, 4064)));
    let mut padded = noise(1, 4064);
    padded[4000..].fill(0);
    assert!(!looks_like_noise(&padded));
    assert!(!looks_like_noise(&b"{\"id\":1,\"name\":\"a row of a table\"}\n".repeat(120)));
}

/// The grid of `docs/format/README.md`, said again.
fn is_on_grid(bytes: u64) -> bool {
    let step = if bytes <= 256 << 10 { bytes.next_power_of_two() } else { 1 << (bytes.ilog2() - 5) };
    bytes >= 4096 && bytes.is_multiple_of(step)
}

#[test]
fn lengths_are_on_the_grid_and_few() {
    // Files of many lengths, each a snapshot of its own: the worst case for hiding a length.
    let world = World::new();
    let mut lengths = BTreeSet::new();
    for (number, bytes) in [1, 999, 5_000, 33_000, 90_000, 91_000, 93_000, 95_000].into_iter().enumerate() {
        let source = world.path(&format!("source{number}"));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), noise(number as u64, bytes)).unwrap();
        world.snapshot(&format!("s{number}"), &source);
    }
    for file in files_below(&world.path("repository")) {
        let name = file.strip_prefix(world.path("repository")).unwrap().to_owned();
        let bytes = fs::metadata(&file).unwrap().len();
        if name.to_string_lossy().starts_with("config") || name.starts_with("keys") {
            continue;
        }
        assert!(is_on_grid(bytes), "{} has {bytes} bytes", name.display());
        if name.starts_with("packs") {
            lengths.insert(bytes);
        }
    }
    // Where a file is cut, and in which of the open packs its chunks come to stand, is a secret's and a
    // chance's affair.
    let steps = BTreeSet::from([4096, 8192, 16_384, 32_768, 65_536, 131_072]);
    assert!(lengths.is_subset(&steps), "lengths within one step look alike: {lengths:?}");
}

/// The configuration, or its copy.
fn is_config(file: &Path) -> bool {
    file.ends_with("config") || file.ends_with("config-copy")
}

#[test]
fn the_same_tree_gives_nothing_alike_in_two_repositories() {
    let (_one, first) = repository_of_marks();
    let (_two, second) = repository_of_marks();
    let blocks = |files: &[PathBuf]| -> BTreeSet<Vec<u8>> {
        let contents = files.iter().filter(|file| !is_config(file)).map(|file| fs::read(file).unwrap());
        contents
            .flat_map(|bytes| {
                bytes[ENVELOPE_BYTES.min(bytes.len())..].chunks(16).map(<[u8]>::to_vec).collect::<Vec<_>>()
            })
            .collect()
    };
    let shared = blocks(&first).intersection(&blocks(&second)).filter(|block| block.len() == 16).count();
    assert_eq!(shared, 0, "blocks of 16 bytes are shared");
}

#[test]
fn only_the_configuration_says_something_in_the_clear() {
    let (world, _) = repository_of_marks();
    let config = fs::read(world.path("repository/config")).unwrap();
    for word in CLEAR_CONFIG {
        assert!(config.windows(word.len()).any(|window| window == word.as_bytes()), "{word}");
    }
}
