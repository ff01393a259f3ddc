//! Goal: whatever object is damaged in whatever way, every operation ends with what it should or with an
//! error that names the object: never a panic, never wrong bytes, never another snapshot harmed; and
//! `docs/assurance/damage-matrix.md` says which. Method: one repository with every kind of object, copied for
//! every cell of the matrix; the words of each cell are compared with the page. `COPAL_WRITE_DOCS=1` writes
//! the page instead.
#![allow(clippy::unwrap_used)]

mod damage_support;

use std::fmt::Write as _;
use std::path::Path;

use damage_support::{Fault, Field, Kind, Template, Victim, faults, victims};

const BEGIN: &str = "<!-- the tables: compared by engine/tests/damage.rs -->\n";

fn title(victim: Victim) -> &'static str {
    match victim {
        Victim::Config => "Configuration",
        Victim::KeySlot => "Key slot, the one in use",
        Victim::Roster => "Roster, one of its two objects",
        Victim::Rosters => "Roster, both objects",
        Victim::NewGrant => "Grant of the newest key epoch to the slot in use",
        Victim::OldGrant => "Grant of an older key epoch to the slot in use",
        Victim::DataPack => "Data pack",
        Victim::NodePack => "Node pack",
        Victim::Fragment => "Index fragment",
        Victim::Root => "Snapshot root, that of `second`",
        Victim::Label => "Label, that pins `second`",
        Victim::Condemned => "Sentence of collection",
        Victim::Session => "Session, of a process that died",
        Victim::Cache => "Cache of the catalogue",
    }
}

fn row(fault: Fault) -> &'static str {
    match fault {
        Fault::Missing => "missing",
        Fault::Truncated => "truncated",
        Fault::Flipped => "one bit flipped",
        Fault::Envelope(Field::Version) => "… in the envelope's version",
        Fault::Envelope(Field::Epoch) => "… in its key epoch",
        Fault::Envelope(Field::Sealing) => "… in its sealing",
        Fault::Envelope(Field::Id) => "… in its object id",
        Fault::Zeroed => "zeroed",
        Fault::Swapped => "swapped with another",
        Fault::Older => "an older one put back",
    }
}

const COLUMNS: [&str; 7] =
    ["list", "deploy of `second`", "create", "verify", "verify --repair", "… --from the source", "gc"];

type Cells = [String; 7];

/// Every operation but create, which wants a tree that has grown.
fn cells(template: &Template, victim: Victim, fault: Fault) -> Cells {
    let world = || template.world(victim, fault, None);
    let of = |operation: &dyn Fn(&damage_support::World<'_>) -> String| {
        let world = world();
        let said = operation(&world);
        world.check_alone();
        said
    };
    [
        of(&|world| world.list()),
        of(&|world| world.deploy("second")),
        String::new(),
        of(&|world| world.verify()),
        of(&|world| world.repair(false)),
        of(&|world| world.repair(true)),
        of(&|world| world.collect()),
    ]
}

/// All cells: kinds side by side.
fn for_all<T: Send>(kind: Kind, work: &(dyn Fn(Victim, Fault) -> T + Sync)) -> Vec<Vec<T>> {
    std::thread::scope(|scope| {
        let row = |victim| faults(kind, victim).into_iter().map(move |fault| work(victim, fault)).collect();
        let threads: Vec<_> = victims(kind).into_iter().map(|victim| scope.spawn(move || row(victim))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn tables(kind: Kind) -> String {
    let mut template = Template::new(kind);
    let mut all = for_all(kind, &|victim, fault| cells(&template, victim, fault));
    template.grow();
    let created = for_all(kind, &|victim, fault| {
        let world = template.world(victim, fault, None);
        let said = world.create();
        world.check_alone();
        said
    });
    for (rows, created) in all.iter_mut().zip(created) {
        for (cells, said) in rows.iter_mut().zip(created) {
            cells[2] = said;
        }
    }
    let prefix = match kind {
        Kind::NeverRotated => "",
        Kind::RotatedTwice => "Rotated twice: ",
    };
    let mut tables = String::new();
    for (victim, rows) in victims(kind).into_iter().zip(&all) {
        let title = title(victim);
        write!(tables, "\n## {prefix}{title}\n\n| | {} |\n|{}\n", COLUMNS.join(" | "), "---|".repeat(8)).unwrap();
        for (fault, cells) in faults(kind, victim).into_iter().zip(rows) {
            writeln!(tables, "| {} | {} |", row(fault), cells.join(" | ")).unwrap();
        }
    }
    tables
}

#[test]
fn every_cell_of_the_matrix_is_as_the_page_says() {
    let tables = [Kind::NeverRotated, Kind::RotatedTwice].map(tables).concat();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/assurance/damage-matrix.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (text, written) = page.split_once(BEGIN).expect("the page has tables");
    if std::env::var_os("COPAL_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{text}{BEGIN}{tables}")).unwrap();
        return;
    }
    for (written, found) in written.lines().zip(tables.lines()) {
        assert_eq!(written, found, "docs/assurance/damage-matrix.md");
    }
    assert_eq!(written, tables);
}

#[test]
fn wherever_a_bit_flips_nothing_wrong_comes_out() {
    for kind in [Kind::NeverRotated, Kind::RotatedTwice] {
        flip_here_and_there(&Template::new(kind));
    }
}

fn flip_here_and_there(template: &Template) {
    for_all(template.kind(), &|victim, fault| {
        if fault != Fault::Flipped {
            return;
        }
        for position in [0, 7, 60, 130, 333, 500, 777, 940, 1000] {
            let world = template.world(victim, fault, Some(position));
            world.list();
            world.deploy("second");
            world.deploy("first");
            world.verify();
            world.repair(true);
            world.collect();
            world.check_alone();
        }
    });
}

#[test]
fn after_a_repair_the_next_create_brings_back_what_still_stands_in_the_source() {
    for kind in [Kind::NeverRotated, Kind::RotatedTwice] {
        heal_by_creates(Template::new(kind));
    }
}

fn heal_by_creates(mut template: Template) {
    let kind = template.kind();
    // A repair leaves what says that a newer program wrote it.
    let faults = |victim| faults(kind, victim).into_iter().filter(|fault| *fault != Fault::Envelope(Field::Version));
    template.stay();
    let heal = |template: &Template, victim, fault| {
        let world = template.world(victim, fault, None);
        world.heal_by_create();
        world.check_alone();
    };
    // The manifest of a tree comes back only while the tree is the same.
    faults(Victim::NodePack).for_each(|fault| heal(&template, Victim::NodePack, fault));
    template.grow();
    for victim in [Victim::DataPack, Victim::Fragment] {
        faults(victim).for_each(|fault| heal(&template, victim, fault));
    }
}
