//! Goal: `docs/format/bundle.md` says what a bundle is, to the byte, and bundles of earlier versions stay
//! readable. Method: the golden bundle in `testdata/bundles` is opened from the words of the page; its header
//! and its plaintext are compared with the page's blocks, and it is imported and deployed.
#![allow(clippy::unwrap_used)]

#[path = "../../engine/tests/deploy_support/mod.rs"]
mod deploy_support;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use copal_bundle::{ImportRequest, Watch, hub_tar, import, verify};
use copal_engine::deploy::DeployMode;
use copal_store::stream::{ReadAt, STREAM_HEADER_BYTES, StreamKeys, StreamOpener};
use deploy_support::World;
use zeroize::Zeroizing;

const PASSWORD: &[u8] = b"golden";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn golden(name: &str) -> PathBuf {
    root().join("testdata/bundles").join(name)
}

struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = self.0.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

fn dump(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).enumerate();
    lines.map(|(number, line)| format!("{:04x}  {}\n", number * 32, hex::encode(line))).collect()
}

/// The block of a page that is called so.
fn block(page: &str, info: &str) -> String {
    let begin = format!("```{info}\n");
    let from = page.find(&begin).map_or("", |at| &page[at + begin.len()..]);
    from.split("```").next().unwrap_or_default().to_owned()
}

#[test]
fn the_page_shows_the_golden_bundle() {
    let page = fs::read_to_string(root().join("docs/format/bundle.md")).unwrap();
    let file = fs::read(golden("v2.copal")).unwrap();
    let keys = StreamKeys::open(&file, PASSWORD).unwrap();
    let bytes = file.len() as u64;
    let opener = StreamOpener::new(&keys, Bytes(file.clone()), bytes).unwrap();
    let mut plain = Vec::new();
    opener.segment(0, &mut plain).unwrap();
    assert_eq!(plain.len() as u64, opener.plain_bytes(), "it has one segment");
    let end = plain.iter().rposition(|byte| *byte != 0).unwrap();
    // The last block is the end: its head has nothing but its kind.
    let shown = [("hex header", dump(&file[..STREAM_HEADER_BYTES])), ("hex plaintext", dump(&plain[..end + 10]))];
    let differing: String = shown
        .iter()
        .filter(|(info, expected)| block(&page, info) != *expected)
        .map(|(info, expected)| format!("```{info}\n{expected}```\n"))
        .collect();
    assert!(differing.is_empty(), "docs/format/bundle.md should say:\n{differing}<end>");
}

#[test]
fn golden_bundles_are_verified_imported_and_deployed() {
    let world = World::new();
    let open = |name: &str| File::open(golden(name)).unwrap();
    for version in ["v1", "v2"] {
        let bundle = || open(&format!("{version}.copal"));
        let summary = verify(Watch::of(&world.context), bundle(), PASSWORD).unwrap();
        assert_eq!((summary.snapshots.len(), summary.snapshots[0].name.as_str()), (1, "golden"));
        let name = Some(version.to_owned());
        let request = ImportRequest { password: Zeroizing::new(PASSWORD.to_vec()), name, app: None };
        import(&world.context, bundle(), &request).unwrap();
        let target = world.path(&format!("target {version}"));
        world.deploy(version, &target, DeployMode::Auto).unwrap();
        assert_eq!(fs::read(target.join("hello.txt")).unwrap(), b"hello, bundle\n");
        assert_eq!(fs::read(target.join("folder/words")).unwrap(), "amber resin copal ".repeat(40).as_bytes());
    }
    let request = hub_tar::HubImportRequest {
        password: Some(Zeroizing::new(PASSWORD.to_vec())),
        ..hub_tar::HubImportRequest::default()
    };
    let report = hub_tar::import(&world.context, open("v1-hub.tar.gz"), &request).unwrap();
    assert!(report.has_key);
    let target = world.path("hub");
    world.deploy("hub", &target, DeployMode::Auto).unwrap();
    assert_eq!(fs::read(target.join("bucket/object")).unwrap(), b"an object\n");
}
