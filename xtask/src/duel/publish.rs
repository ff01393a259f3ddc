//! Puts results where readers look: between markers of `docs/assurance/benchmarks.md` and `README.md`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::results::Results;
use super::{plot, table};

const BEGIN: &str = "<!-- duel: made by `cargo xtask duel --publish`, not by hand -->";
const END: &str = "<!-- /duel -->";
/// The published figures.
pub(super) const RESULTS: &str = "docs/assurance/benchmarks.json";
const PLOT: &str = "docs/assurance/benchmarks.svg";
const PAGE: &str = "docs/assurance/benchmarks.md";
const README: &str = "README.md";

/// Merges new results into the published ones, and makes the tables and the plot again.
pub(super) fn publish(root: &Path, new: Results) -> Result<()> {
    let mut results = Results::load(&root.join(RESULTS))?;
    results.workloads.extend(new.workloads);
    results.save(&root.join(RESULTS))?;
    let plot = root.join(PLOT);
    fs::write(&plot, plot::svg(&results)).with_context(|| format!("writing {}", plot.display()))?;
    for (name, table) in [(PAGE, table::full(&results)), (README, table::short(&results))] {
        let file = root.join(name);
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let text = replaced(&text, &table).with_context(|| format!("{name} has no place for the table"))?;
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

/// The text with another table between the markers.
fn replaced(text: &str, table: &str) -> Result<String> {
    let Some((before, rest)) = text.split_once(BEGIN) else { bail!("it lacks the line {BEGIN}") };
    let Some((_, after)) = rest.split_once(END) else { bail!("it lacks the line {END}") };
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", table.trim_end()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    //! Goal: no page shows other figures than those that were measured. Method: the pages are made again and
    //! compared.

    use super::*;

    #[test]
    fn the_pages_show_what_was_measured() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let results = Results::load(&root.join(RESULTS)).unwrap();
        assert!(!results.workloads.is_empty(), "nothing was measured");
        for (name, table) in [(PAGE, table::full(&results)), (README, table::short(&results))] {
            let text = fs::read_to_string(root.join(name)).unwrap();
            assert!(
                replaced(&text, &table).unwrap() == text,
                "{name} is stale: cargo xtask duel --publish makes it again"
            );
        }
        assert!(fs::read_to_string(root.join(PLOT)).unwrap() == plot::svg(&results), "the plot is stale");
    }

    #[test]
    fn only_the_text_between_the_markers_changes() {
        let page = format!("# Title\n{BEGIN}\nold\n{END}\nrest\n");
        let new = replaced(&page, "| a |\n").unwrap();
        assert_eq!(new, format!("# Title\n{BEGIN}\n\n| a |\n\n{END}\nrest\n"));
        assert_eq!(replaced(&new, "| a |\n").unwrap(), new);
        assert!(replaced("no markers", "").is_err());
    }
}
