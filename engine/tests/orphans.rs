//! Goal: a snapshot of before, which has what is in a folder and not the folder, is deployed: the folder is
//! made (row D9). Method: a tree made by hand without some of its folders.
#![allow(clippy::unwrap_used)]

mod catalogue_support;

use std::fs;

use catalogue_support::{World, entries, snapshot};
use copal_engine::deploy::{DeployRequest, Selection, deploy};
use copal_manifest::entry::EntryPath;
use copal_store::session::Session;

#[test]
fn d09_a_folder_that_a_snapshot_lacks_is_made_for_what_is_in_it() {
    let world = World::new();
    let session = Session::begin(world.repository()).unwrap();
    let mut entries = entries(&[("a/b/c/f", b"deep".to_vec()), ("a/g", b"up".to_vec()), ("z", b"top".to_vec())]);
    for folder in ["a/b", "a/b/c"] {
        entries.remove(&EntryPath::from_slashes(folder.as_bytes()).unwrap()).unwrap();
    }
    let mut made = snapshot("", "old", 1);
    made.sources = vec![world.source(&session, "", &entries)];
    world.commit_in(session, &made);
    let target = world.folder.path().join("target");
    let state = Some(world.folder.path().join("state"));
    let context = copal_engine::Context { state_folder: state, ..world.context.clone() };
    let request =
        DeployRequest { reference: "old".into(), target: target.clone(), replace: true, ..DeployRequest::default() };
    let read = |path: &str| fs::read(target.join(path)).unwrap();
    for turn in 0..3 {
        deploy(&context, &request).unwrap();
        assert_eq!((read("a/b/c/f"), read("a/g"), read("z")), (b"deep".to_vec(), b"up".to_vec(), b"top".to_vec()));
        match turn {
            0 => fs::remove_dir_all(target.join("a/b")).unwrap(),
            _ => fs::write(target.join("a/b/c/f"), b"changed").unwrap(),
        }
    }
    fs::remove_dir_all(&target).unwrap();
    let selection = Selection { include: vec!["f".into()], exclude: Vec::new() };
    deploy(&context, &DeployRequest { selection, keep_others: true, ..request }).unwrap();
    assert_eq!(read("a/b/c/f"), b"deep");
    assert!(!target.join("z").exists());
}
