//! The results as a picture: for each workload and phase a bar for each tool, on a logarithmic scale.

use std::fmt::Write;

use super::results::{Results, WorkloadResults};
use super::table::{figure, ordered};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 170.0;
const RIGHT: f64 = 70.0;
const BAR: f64 = 11.0;
const GAP: f64 = 9.0;
const SECONDS_MIN: f64 = 0.01;
/// Of the tools in their order; the product stands out.
const COLOURS: [&str; 7] = ["#b5541c", "#d9a184", "#7a8ca3", "#9fb2c8", "#5f7f6f", "#a9a58a", "#8c7a9a"];

/// An SVG document.
pub(super) fn svg(results: &Results) -> String {
    let mut body = String::new();
    let mut y = 34.0;
    for (name, workload) in ordered(results) {
        y = one(&mut body, y, name, workload);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y:.0}\" viewBox=\"0 0 {WIDTH} {y:.0}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"20\" font-size=\"14\" font-weight=\"bold\">Seconds for each phase (median, logarithmic scale; shorter is better)</text>\n{body}</svg>\n"
    )
}

fn one(body: &mut String, top: f64, name: &str, workload: &WorkloadResults) -> f64 {
    let mut y = top + 16.0;
    let _ =
        writeln!(body, "<text x=\"12\" y=\"{y:.0}\" font-size=\"13\" font-weight=\"bold\">{}</text>", escaped(name));
    let mut x = LEFT;
    for (tool, colour) in workload.tools.iter().zip(COLOURS) {
        let _ =
            writeln!(body, "<rect x=\"{x:.0}\" y=\"{:.0}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>", y - 9.0);
        let _ = writeln!(body, "<text x=\"{:.0}\" y=\"{y:.0}\">{}</text>", x + 14.0, escaped(&tool.version));
        x += 34.0 + 6.2 * tool.version.len() as f64;
    }
    y += 12.0;
    let phases = workload.phases();
    let times = || phases.iter().flat_map(|phase| workload.tools.iter().filter_map(move |tool| tool.seconds(phase)));
    let most = times().fold(1.0, f64::max);
    let length = |seconds: f64| {
        let share = (seconds.max(SECONDS_MIN) / SECONDS_MIN).ln() / (most / SECONDS_MIN).ln();
        (share * (WIDTH - LEFT - RIGHT)).max(1.0)
    };
    let mut tick = SECONDS_MIN;
    let bottom = y + phases.len() as f64 * (BAR * workload.tools.len() as f64 + GAP);
    while tick <= most {
        let x = LEFT + length(tick);
        let _ = writeln!(
            body,
            "<line x1=\"{x:.1}\" y1=\"{y:.0}\" x2=\"{x:.1}\" y2=\"{bottom:.0}\" stroke=\"#e3e3e3\"/>\
             <text x=\"{x:.1}\" y=\"{:.0}\" fill=\"#888888\" text-anchor=\"middle\">{tick} s</text>",
            bottom + 11.0
        );
        tick = (tick * 1000.0).round() / 100.0;
    }
    for phase in &phases {
        let middle = y + BAR * workload.tools.len() as f64 / 2.0 + 4.0;
        let _ = writeln!(
            body,
            "<text x=\"{:.0}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            escaped(phase)
        );
        for (tool, colour) in workload.tools.iter().zip(COLOURS) {
            if let Some(seconds) = tool.seconds(phase) {
                let width = length(seconds);
                let _ = writeln!(
                    body,
                    "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\
                     <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"9\">{}</text>",
                    BAR - 1.0,
                    LEFT + width + 4.0,
                    y + BAR - 2.5,
                    figure(seconds)
                );
            }
            y += BAR;
        }
        y += GAP;
    }
    y + 22.0
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
