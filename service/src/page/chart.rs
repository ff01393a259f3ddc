//! What deduplication, deltas and compression save: figures, and a chart over the snapshots in the order of
//! time.

use copal_manifest::total::total;
use maud::{Markup, html};

use crate::page::shown::{name, size, time};
use crate::platform::{CostsReading, SnapshotView};

/// Bars in the chart: the newest snapshots.
const BARS_MAX: usize = 60;
/// Units of the drawing.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 180.0;
const BASE: f64 = 160.0;

/// One snapshot's parts: together they are its logical size.
struct Bar<'a> {
    snapshot: &'a SnapshotView,
    deduplicated: u64,
    encoded: u64,
    stored: u64,
}

impl<'a> Bar<'a> {
    fn new(snapshot: &'a SnapshotView) -> Self {
        let new = snapshot.bytes_new.min(snapshot.size);
        let stored = snapshot.stored_new.min(new);
        Self { snapshot, deduplicated: snapshot.size - new, encoded: new - stored, stored }
    }
}

/// The section of the first page.
pub(super) fn section(newest_first: &[&SnapshotView], costs: Option<&CostsReading>) -> Markup {
    let mut bars: Vec<Bar<'_>> =
        newest_first.iter().filter(|snapshot| snapshot.size > 0).take(BARS_MAX).map(|one| Bar::new(one)).collect();
    bars.reverse();
    html! {
        section aria-labelledby="savings-heading" {
            h2 id="savings-heading" { "What is saved" }
            @if let Some(costs) = costs { (figures(costs)) }
            @if bars.len() > 1 {
                (drawing(&bars))
                details {
                    summary { "The same as a table" }
                    (table(&bars))
                }
            }
        }
    }
}

fn figures(costs: &CostsReading) -> Markup {
    let stats = &costs.stats;
    html! {
        dl.facts.savings {
            dt { "All snapshots together" } dd { (size(stats.logical)) }
            dt { "Stored" } dd { (size(stats.stored)) }
            dt { "Saved by deduplication" } dd { (size(stats.saved_by_deduplication)) }
            dt { "Saved by deltas" } dd { (size(stats.saved_by_deltas)) }
            dt { "Saved by compression" } dd { (size(stats.saved_by_compression)) }
        }
    }
}

fn drawing(bars: &[Bar<'_>]) -> Markup {
    let highest = bars.iter().map(|bar| bar.snapshot.size).max().unwrap_or(1).max(1) as f64;
    let step = WIDTH / bars.len() as f64;
    let width = (step * 0.8).min(48.0);
    let height = |bytes: u64| bytes as f64 / highest * (BASE - 10.0);
    html! {
        figure {
            svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-labelledby="chart-title chart-description" {
                title id="chart-title" { "Size of each snapshot, by what was stored and what was saved" }
                desc id="chart-description" {
                    (bars.len()) " snapshots, the oldest on the left. "
                    (size(total(bars.iter().map(|bar| bar.stored)))) " were stored, "
                    (size(total(bars.iter().map(|bar| bar.encoded)))) " saved by deltas and compression, "
                    (size(total(bars.iter().map(|bar| bar.deduplicated)))) " by deduplication."
                }
                line.axis x1="0" x2=(WIDTH) y1=(BASE) y2=(BASE) {}
                @for (number, bar) in bars.iter().enumerate() {
                    @let x = format!("{:.1}", number as f64 * step + (step - width) / 2.0);
                    @let parts = [("stored", bar.stored), ("encoded", bar.encoded), ("deduplicated", bar.deduplicated)];
                    @let tops = tops(&parts, height);
                    g {
                        title { (name(&bar.snapshot.name)) ": " (size(bar.snapshot.size)) ", stored " (size(bar.stored)) }
                        @for ((class, bytes), top) in parts.iter().zip(tops) {
                            rect class=(class) x=(x) y={ (format!("{top:.1}")) } width={ (format!("{width:.1}")) }
                                height={ (format!("{:.1}", height(*bytes))) } {}
                        }
                    }
                }
            }
            figcaption {
                span.key.stored {} " stored " span.key.encoded {} " saved by deltas and compression "
                span.key.deduplicated {} " saved by deduplication"
            }
        }
    }
}

fn tops(parts: &[(&str, u64); 3], height: impl Fn(u64) -> f64) -> [f64; 3] {
    let mut top = BASE;
    parts.map(|(_, bytes)| {
        top -= height(bytes);
        top
    })
}

fn table(bars: &[Bar<'_>]) -> Markup {
    html! {
        table {
            caption { "Sizes by snapshot" }
            thead { tr {
                th scope="col" { "Snapshot" } th scope="col" { "Taken" } th.number scope="col" { "Size" }
                th.number scope="col" { "Stored" } th.number scope="col" { "Deltas and compression" }
                th.number scope="col" { "Deduplication" }
            } }
            tbody { @for bar in bars { tr {
                th scope="row" { (name(&bar.snapshot.name)) } td { (time(&bar.snapshot.created)) }
                td.number { (size(bar.snapshot.size)) } td.number { (size(bar.stored)) }
                td.number { (size(bar.encoded)) } td.number { (size(bar.deduplicated)) }
            } } }
        }
    }
}
