//! Goal: an export that is gone on with never seals two different plaintexts under one key and nonce. Method:
//! what was exported is stored otherwise by a collection, so that the same export has other records; the
//! interrupted one is cut off in each range of its bytes, by a kill or by whoever holds the disk, and gone on
//! with. Every seal of the process is noted.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use copal_bundle::{ExportReport, ExportRequest, ExportTarget, Watch, export, verify};
use copal_engine::Context;
use copal_engine::context::{Monitor, Progress};
use copal_engine::create::{CreateRequest, SourceRequest, create};
use copal_engine::removal::{collect_garbage, delete};
use copal_fuzz::world::context;
use copal_sim::world::credential;
use copal_sim::{Choices, SeededEntropy, noise};
use copal_store::fuzzing::{note_seals, seals};
use copal_store::keys::StretchCost;
use copal_store::repository::Repository;
use copal_store::stream::{STREAM_HEADER_BYTES, StreamKeys};

const PASSWORD: &[u8] = b"of the bundle";
const CHEAP: StretchCost = StretchCost { memory_kib: 8, passes: 1, lanes: 1 };

fn snapshot(context: &Context, name: &str, folder: &Path) {
    let sources = vec![SourceRequest { label: String::new(), path: folder.to_owned() }];
    create(context, &CreateRequest { name: name.into(), sources, ..CreateRequest::default() }).unwrap();
}

/// Takes the snapshot `kept` and exports it as soon as another one has begun.
struct Meanwhile {
    context: Context,
    folder: PathBuf,
    begun: Once,
}

impl Monitor for Meanwhile {
    fn phase(&self, _name: &'static str) {
        self.begun.call_once(|| {
            snapshot(&self.context, "kept", &self.folder.join("kept"));
            export_to(&self.context, &self.folder.join("bundle"));
        });
    }
    fn progress(&self, _progress: Progress) {}
    fn notice(&self, _message: &str) {}
}

/// Small files that compress, so that many lie in one frame.
fn words(seed: u64) -> Vec<u8> {
    let mut choices = Choices::new(seed);
    (0..3000).map(|_| b"abcdefgh "[choices.below(9) as usize]).collect()
}

fn export_to(context: &Context, file: &Path) -> ExportReport {
    let password = zeroize::Zeroizing::new(PASSWORD.to_vec());
    let request = ExportRequest { references: vec!["kept".into()], since: None, password, stretch: CHEAP };
    export(context, &request, ExportTarget::File(file.to_owned())).unwrap()
}

#[test]
fn t06_a_resumed_export_never_seals_two_plaintexts_under_one_key_and_nonce() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let context = context(&path("state"));
    for name in ["both", "kept"] {
        fs::create_dir(path(name)).unwrap();
        fs::write(path(name).join("0 first"), noise(1, 500_000)).unwrap();
    }
    note_seals();
    // A create with a parent has read the index when it begins to store.
    snapshot(&context, "first", &path("both"));
    for number in 0..200 {
        fs::write(path("kept").join(format!("f{number}")), words(number)).unwrap();
        fs::write(path("both").join(format!("f{number}")), words(number)).unwrap();
        fs::write(path("both").join(format!("f{number}-more")), words(1000 + number)).unwrap();
    }
    // Of the two creates none sees what the other stores: what both hold is stored twice, in frames of other
    // members.
    let backend = Arc::clone(context.repository.backend());
    let repository = Repository::open(backend, Arc::new(SeededEntropy::new(2)), &credential()).unwrap();
    let meanwhile = Meanwhile {
        context: Context { repository, ..context.clone() },
        folder: folder.path().to_owned(),
        begun: Once::new(),
    };
    snapshot(&Context { monitor: Arc::new(meanwhile), ..context.clone() }, "both", &path("both"));
    let bundle = path("bundle");
    let before = fs::read(&bundle).unwrap();
    delete(&context, &["first".into(), "both".into()]).unwrap();
    let removed: u64 = (0..3).map(|_| collect_garbage(&context, false).unwrap().packs_removed).sum();
    assert!(removed > 0, "nothing is stored otherwise than before");

    let whole = StreamKeys::open(&before, PASSWORD).unwrap().segment_bytes() as usize;
    let segments = (before.len() - STREAM_HEADER_BYTES) / whole;
    assert!(segments > 6, "{segments} segments");
    let mut resumed = BTreeSet::new();
    for segment in 0..=segments {
        for inner in [0, 1, 11, 40, 40_000, whole - 17, whole - 1] {
            let length = STREAM_HEADER_BYTES + segment * whole + inner;
            if length > before.len() {
                continue;
            }
            fs::write(path("bundle.part"), &before[..length]).unwrap();
            let report = export_to(&context, &bundle);
            resumed.insert(report.bytes_resumed);
            verify(Watch::of(&context), fs::File::open(&bundle).unwrap(), PASSWORD).unwrap();
        }
    }
    assert!(resumed.len() > 3, "hardly anything was gone on with: {resumed:?}");
    let mut sealed: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (key, nonce, text) in seals() {
        sealed.entry((key, nonce)).or_default().insert(text);
    }
    let twice = sealed.values().filter(|texts| texts.len() > 1).count();
    assert_eq!(twice, 0, "of {} keys and nonces so many were used for different plaintexts", sealed.len());
}
