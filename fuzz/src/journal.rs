//! The journal of a deploy in place and the pointer to it: files on a real disk, which anything may have
//! happened to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use copal_engine::Context;
use copal_engine::create::{CreateRequest, SourceRequest, create};
use copal_engine::deploy::{CrashPoints, DeployMode, DeployRequest, NoCrash, deploy_until, recover};
use copal_sim::{Choices, noise};

use crate::world::context;

/// Dies right after the journal is committed.
struct AfterCommit;

impl CrashPoints for AfterCommit {
    fn reached(&self, step: &str) -> bool {
        step == "step 0"
    }
}

fn plant(folder: &Path, version: u8) {
    fs::create_dir_all(folder.join("inside")).expect("a folder can be made");
    fs::write(folder.join("inside/one"), [version; 100]).expect("a file can be written");
    let mut big = noise(1, 200_000);
    big[1000] = version;
    fs::write(folder.join("big"), big).expect("a file can be written");
    fs::write(folder.join(format!("only in {version}")), b"x").expect("a file can be written");
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else {
                found.insert(path.clone(), fs::read(&path).unwrap_or_default());
            }
        }
    }
    found
}

/// A world in which a deploy has died after its commit: made once, copied for each input. `cp` keeps what a
/// copy must have.
struct Scene {
    place: tempfile::TempDir,
    old: BTreeMap<PathBuf, Vec<u8>>,
    new: BTreeMap<PathBuf, Vec<u8>>,
    context: Context,
}

fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| {
        let place = tempfile::tempdir().expect("a folder for the test");
        let at = |name: &str| place.path().join(name);
        let context = context(&at("state"));
        for version in [1, 2] {
            plant(&at("source"), version);
            let source = SourceRequest { label: String::new(), path: at("source") };
            let request =
                CreateRequest { name: format!("v{version}"), sources: vec![source], ..CreateRequest::default() };
            create(&context, &request).expect("a snapshot can be taken");
            if version == 1 {
                fs::remove_file(at("source/only in 1")).expect("a file can be removed");
            }
        }
        let deploy =
            |name: &str, points: &dyn CrashPoints| deploy_until(&context, &request(name, &at("target")), points);
        deploy("v2", &NoCrash).expect("a deploy works");
        let new = relative(&at("target"));
        deploy("v1", &NoCrash).expect("a deploy works");
        let old = relative(&at("target"));
        assert_ne!(old, new);
        Scene { old, new, context, place }
    })
}

fn relative(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files(folder)
        .into_iter()
        .map(|(path, bytes)| (path.strip_prefix(folder).expect("it lies below").to_owned(), bytes))
        .collect()
}

fn request(name: &str, target: &Path) -> DeployRequest {
    DeployRequest {
        reference: name.into(),
        target: target.to_owned(),
        mode: DeployMode::InPlace,
        replace: true,
        ..DeployRequest::default()
    }
}

/// A seed (8 bytes) for where the alterations fall, then bytes that are put there: recovery finishes, refuses
/// or takes back, and the target is wholly one of the two.
pub fn deploy_journal(data: &[u8]) {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some((seed, bytes)) = data.split_first_chunk::<8>() else { return };
    let mut choices = Choices::new(u64::from_le_bytes(*seed));
    let scene = scene();
    let at = |name: &str| scene.place.path().join(name);
    let again =
        |name: &str, points: &dyn CrashPoints| deploy_until(&scene.context, &request(name, &at("target")), points);
    again("v1", &NoCrash).expect("the world can be put back");
    again("v2", &AfterCommit).expect_err("it dies");
    let journal: Vec<PathBuf> = files(scene.place.path())
        .into_keys()
        .filter(|path| {
            let text = path.to_string_lossy();
            text.contains(".copal-journal-") && !text.ends_with("ranges") || text.contains("/pending/")
        })
        .filter(|path| {
            path.file_name().is_some_and(|name| name == "steps" || name == "commit")
                || path.to_string_lossy().contains("/pending/")
        })
        .collect();
    assert!(journal.len() >= 3, "steps, commit and pointer: {journal:?}");
    for piece in bytes.chunks(5) {
        let path = &journal[choices.below(journal.len() as u64) as usize];
        let mut content = fs::read(path).unwrap_or_default();
        if content.is_empty() {
            continue;
        }
        let place = choices.below(content.len() as u64) as usize;
        match piece[0] % 4 {
            0 => content.truncate(place),
            1 => content.extend_from_slice(piece),
            _ => content[place..].iter_mut().zip(piece).for_each(|(byte, value)| *byte = *value),
        }
        fs::write(path, content).expect("a file can be written");
    }
    let _ = recover(&at("state"));
    let found = relative(&at("target"));
    assert!(found == scene.old || found == scene.new, "a target between old and new");
    // Whatever recovery made of it is put away, as a person would.
    for entry in fs::read_dir(scene.place.path()).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(".copal-") {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let _ = fs::remove_dir_all(at("state").join("pending"));
}

/// Few and many alterations.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    vec![vec![0; 8], vec![1; 13], vec![2; 20], b"12345678abcde".to_vec()]
}
