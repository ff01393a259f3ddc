//! Goal: what the repository's lengths hide costs little. Method: chunks that no encoding shortens, and the
//! lengths of the packs.
#![allow(clippy::unwrap_used)]

mod support;

use copal_sim::noise;
use copal_store::check::{check_pack, packs};
use copal_store::pack::pack_name;
use copal_store::padding::on_grid;
use copal_store::session::Session;
use support::{in_memory, snapshot};

#[test]
fn full_packs_end_where_they_fit_the_grid_of_lengths() {
    let (_, repository) = in_memory(1);
    let chunks: Vec<Vec<u8>> = (0..6000).map(|number| noise(number, 2000)).collect();
    snapshot(&repository, "one", &chunks);
    let session = Session::begin(&repository).unwrap();
    let mut full = 0;
    for pack in packs(&repository).unwrap() {
        let length = repository.backend().stat(&pack_name(pack)).unwrap().bytes;
        assert!(on_grid(length) == length && length <= 1 << 20, "{length}");
        if length > 900 << 10 {
            full += 1;
            // A chunk takes its bytes, a tag of 16, and 41 in the trailer.
            let held = check_pack(&session, pack).unwrap().chunks * (2000 + 16 + 41);
            assert!(length - held <= length / 256, "{held} of {length}");
        }
    }
    session.end().unwrap();
    assert!(full >= 10, "{full}");
}
