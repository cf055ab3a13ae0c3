//! Results as one page that needs nothing else: no script, no font, no picture from elsewhere.

use std::fmt::Write;

use super::plot::{Axis, Marks, Plot, Series};
use super::{About, MEASURES, PERCENTILES, count, number};
use crate::bench::Distribution;
use crate::bench::load::Results;

/// The whole page.
pub fn html(results: &Results, about: &About) -> String {
    let title = match &about.label {
        Some(label) => format!("{label}: {}", about.model),
        None => about.model.clone(),
    };
    let title = escaped(&title);
    let warning = warning(results, about);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n<p class=\"sub\">{}{} · {} · {} UTC</p>\n{warning}\
         <section class=\"tiles\">{}</section>\n{}\n<section class=\"plots\">{}</section>\n{}{}\
         </main>\n</body>\n</html>\n",
        escaped(&about.server),
        escaped(&about.endpoint),
        escaped(&about.load_in_words()),
        about.date(),
        tiles(results),
        latencies(results),
        plots(results),
        failures(results),
        settings(results, about),
    )
}

fn warning(results: &Results, about: &About) -> String {
    let mut text = String::new();
    if results.is_client_bound(about) {
        let _ = writeln!(
            text,
            "<p class=\"warning\">The client could not keep up: the 99th percentile of its send lag was {} ms. These \
             numbers are the client's, not the server's.</p>",
            number(results.lag.percentile(99.0))
        );
    }
    if results.is_interrupted {
        let _ = writeln!(
            text,
            "<p class=\"warning\">Stopped early: {} requests were under way, {} were never sent.</p>",
            count(results.in_flight as u64),
            count(results.unsent as u64)
        );
    }
    text
}

fn tiles(results: &Results) -> String {
    let mut tiles = vec![
        ("completed", count(results.completed as u64)),
        ("failed", count(results.failed as u64)),
        ("seconds", number(results.duration)),
        ("requests/s", number(results.request_throughput())),
        ("output tokens/s", number(results.output_throughput())),
        ("all tokens/s", number(results.total_throughput())),
        ("most at once", count(results.peak_concurrency() as u64)),
    ];
    if let Some(goodput) = results.request_goodput() {
        tiles.push(("good requests/s", number(goodput)));
    }
    if let Some(cached) = results.total_cached {
        let share = 100.0 * cached as f64 / results.total_input.max(1) as f64;
        tiles.push(("prompt tokens cached", format!("{share:.1} %")));
    }
    tiles
        .iter()
        .map(|(name, value)| format!("<div><b>{value}</b><span>{name}</span></div>"))
        .collect()
}

fn latencies(results: &Results) -> String {
    let mut text = String::from("<table>\n<tr><th>ms</th><th>mean</th>");
    for percent in PERCENTILES {
        let _ = write!(text, "<th>p{percent}</th>");
    }
    text.push_str("<th>max</th><th>std</th></tr>\n");
    for (key, name, long) in MEASURES {
        let of = results.measure(key);
        let _ = write!(
            text,
            "<tr><th title=\"{long}\">{name} <small>{long}</small></th><td>{}</td>",
            number(of.mean)
        );
        for percent in PERCENTILES {
            let _ = write!(text, "<td>{}</td>", number(of.percentile(percent)));
        }
        let _ = writeln!(
            text,
            "<td>{}</td><td>{}</td></tr>",
            number(of.max()),
            number(of.std)
        );
    }
    text + "</table>"
}

fn plots(results: &Results) -> String {
    let plots = [
        cumulative("Time to first token: share of requests", &results.ttft),
        cumulative("Gaps between chunks: share of gaps", &results.itl),
        over_time(results),
        throughput(&results.tokens_per_second),
        Plot {
            title: "Requests under way",
            x: axis("seconds"),
            y: axis("requests"),
            series: vec![Series {
                name: "requests",
                points: concurrency(&results.concurrency),
                marks: Marks::Steps,
            }],
        }
        .svg(),
    ];
    let titles = [
        "Time to first token",
        "Gaps between chunks",
        "Latency over time",
        "Output tokens in each second",
        "Requests under way",
    ];
    titles
        .iter()
        .zip(plots)
        .map(|(title, plot)| format!("<figure><figcaption>{title}</figcaption>{plot}</figure>\n"))
        .collect()
}

fn axis(label: &str) -> Axis<'_> {
    Axis {
        label,
        may_be_log: false,
    }
}

fn cumulative(title: &str, of: &Distribution) -> String {
    let mut points = Vec::new();
    if of.count > 0 {
        let fine = (991..1000).map(|tenth| f64::from(tenth) / 10.0);
        let percents = (0..=99).map(f64::from).chain(fine).chain([100.0]);
        points = percents
            .map(|percent| (of.percentile(percent), percent))
            .collect();
    }
    Plot {
        title,
        x: Axis {
            label: "milliseconds",
            may_be_log: true,
        },
        y: axis("% at most"),
        series: vec![Series {
            name: "share",
            points,
            marks: Marks::Line,
        }],
    }
    .svg()
}

fn over_time(results: &Results) -> String {
    let good: Vec<_> = results
        .records
        .iter()
        .filter(|record| record.failure.is_none())
        .collect();
    let every = good.len().div_ceil(MOST_DOTS).max(1);
    let series = |name, value: fn(&crate::bench::load::Record) -> f64| Series {
        name,
        points: good
            .iter()
            .step_by(every)
            .map(|record| (record.start, value(record) * 1e3))
            .collect(),
        marks: Marks::Dots,
    };
    Plot {
        title: "Latency of requests by the time of their start",
        x: axis("seconds"),
        y: Axis {
            label: "milliseconds",
            may_be_log: true,
        },
        series: vec![
            series("E2EL", |record| record.latency),
            series("TTFT", |record| record.ttft),
        ],
    }
    .svg()
}

/// A bar for each second; for long runs, steps that show the mean of several seconds.
fn throughput(seconds: &[f64]) -> String {
    let every = seconds.len().div_ceil(MOST_BARS).max(1);
    let points = seconds
        .chunks(every)
        .enumerate()
        .map(|(index, chunk)| {
            let mean = chunk.iter().sum::<f64>() / chunk.len() as f64;
            ((index * every) as f64, mean)
        })
        .collect();
    let marks = if every == 1 {
        Marks::Bars
    } else {
        Marks::Steps
    };
    Plot {
        title: "Output tokens in each second",
        x: axis("seconds since the first request"),
        y: axis("tokens/s"),
        series: vec![Series {
            name: "tokens",
            points,
            marks,
        }],
    }
    .svg()
}

/// The most of each stretch of time, so that no peak is lost.
fn concurrency(changes: &[(f64, usize)]) -> Vec<(f64, f64)> {
    let every = changes.len().div_ceil(MOST_DOTS).max(1);
    let peaks = changes.chunks(every).map(|chunk| {
        let most = chunk.iter().map(|(_, count)| *count).max().unwrap_or(0);
        (chunk[0].0, most as f64)
    });
    let end = changes.last().map(|(time, count)| (*time, *count as f64));
    peaks.chain(end).collect()
}

fn failures(results: &Results) -> String {
    if results.failures.is_empty() {
        return String::new();
    }
    let rows: String = results
        .failures
        .iter()
        .map(|(kind, (times, first))| {
            format!(
                "<tr><td>{times}</td><td>{}</td><td>{}</td></tr>\n",
                escaped(kind),
                escaped(first)
            )
        })
        .collect();
    format!(
        "<h2>Failures</h2>\n<table>\n<tr><th>times</th><th>kind</th><th>the first</th></tr>\n{rows}</table>\n"
    )
}

fn settings(results: &Results, about: &About) -> String {
    let mut rows = vec![
        ("model".to_owned(), about.model.clone()),
        ("load".to_owned(), about.load_in_words()),
        ("num-prompts".to_owned(), about.num_prompts.to_string()),
        ("seed".to_owned(), about.seed.to_string()),
    ];
    rows.extend(
        about
            .settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone())),
    );
    rows.extend(about.metadata.iter().cloned());
    rows.push(("prompt tokens".to_owned(), results.total_input.to_string()));
    rows.push(("output tokens".to_owned(), results.total_output.to_string()));
    rows.push((
        "send lag p50, p99".to_owned(),
        format!(
            "{} ms, {} ms",
            number(results.lag.median()),
            number(results.lag.percentile(99.0))
        ),
    ));
    rows.push((
        "client's processor time".to_owned(),
        format!("{} s", number(results.cpu_seconds)),
    ));
    let rows: String = rows
        .iter()
        .map(|(name, value)| {
            format!(
                "<tr><th>{}</th><td>{}</td></tr>\n",
                escaped(name),
                escaped(value)
            )
        })
        .collect();
    format!("<h2>How it was measured</h2>\n<table class=\"settings\">\n{rows}</table>\n")
}

/// Text that is no markup, in an element or in a quoted attribute.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

const MOST_DOTS: usize = 2000;
const MOST_BARS: usize = 200;

const STYLE: &str = "
:root{--paper:#fff;--ink:#1b1f24;--soft:#59636e;--rule:#d8dee4;--tile:#f6f8fa;--s0:#0969da;--s1:#bc4c00;--bad:#9a6700}
@media(prefers-color-scheme:dark){:root{--paper:#0d1117;--ink:#e6edf3;--soft:#9198a1;--rule:#30363d;--tile:#161b22;\
--s0:#58a6ff;--s1:#f0883e;--bad:#d29922}}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1100px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:24px;margin:0}h2{font-size:18px;margin:32px 0 8px}
.sub{color:var(--soft);margin:4px 0 20px;overflow-wrap:anywhere}
.warning{border-left:4px solid var(--bad);background:var(--tile);padding:8px 12px}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(130px,1fr));gap:8px;margin-bottom:20px}
.tiles div{background:var(--tile);border:1px solid var(--rule);border-radius:6px;padding:10px 12px}
.tiles b{display:block;font-size:20px;font-variant-numeric:tabular-nums}.tiles span,small{color:var(--soft);font-size:12px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}
td,th{border-bottom:1px solid var(--rule);padding:5px 10px;text-align:right;font-weight:400}
th:first-child,.settings td{text-align:left}small{margin-left:4px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(480px,100%),1fr));gap:20px;margin-top:28px}
figure{margin:0}figcaption{font-weight:600}svg{width:100%;height:auto}
svg text{fill:var(--soft);font-size:11px}svg .x{text-anchor:middle}svg .y{text-anchor:end}
.grid{stroke:var(--rule);fill:none}.axis{stroke:var(--soft);fill:none}.line{fill:none;stroke-width:2}
.line.s0{stroke:var(--s0)}.line.s1{stroke:var(--s1)}.dot.s0,.bar.s0{fill:var(--s0)}.dot.s1,.bar.s1{fill:var(--s1)}
.dot{fill-opacity:.75}.empty{color:var(--soft)}
";

#[cfg(test)]
mod tests {
    use super::super::tests::{about, results};
    use super::*;
    use crate::bench::load::{Goals, Outcome};

    #[test]
    fn the_page_loads_nothing_and_runs_nothing() {
        let page = html(&results(), &about());
        for word in [
            "<script", "<link", "<img", "<iframe", "@import", "url(", "src=", "href=",
        ] {
            assert!(!page.contains(word), "{word}");
        }
        assert_eq!(
            page.matches("http://").count(),
            1,
            "the server's address alone"
        );
        assert_eq!(page.matches("<svg").count(), 5);
        assert_eq!(page.matches("</svg>").count(), 5);
        assert!(page.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn what_others_wrote_is_text_and_no_markup() {
        let page = html(&results(), &about());
        assert!(page.contains("&lt;b&gt;first&lt;/b&gt;: seedling"));
        assert!(page.contains("none &amp; nothing"));
        assert!(page.contains("HTTP 503 &lt;full&gt;: come back later"));
        assert!(!page.contains("<b>first") && !page.contains("<full>"));
        assert_eq!(escaped("\"'"), "&quot;&#39;");
    }

    #[test]
    fn a_run_without_results_still_makes_a_page() {
        let nothing = Results::of(Outcome::default(), &Goals::default());
        let page = html(&nothing, &about());
        assert!(page.contains("nothing to show") && !page.contains("NaN"));
    }

    #[test]
    fn a_run_that_says_nothing_about_the_server_says_so() {
        let mut about = about();
        assert!(!html(&results(), &about).contains("class=\"warning\""));
        about.max_lag_ms = Some(-1.0);
        assert!(html(&results(), &about).contains("could not keep up"));
    }

    #[test]
    fn long_runs_are_thinned_and_keep_their_peaks() {
        let changes: Vec<(f64, usize)> = (0..10_000)
            .map(|place| (f64::from(place), if place == 7_777 { 99 } else { 1 }))
            .collect();
        let points = concurrency(&changes);
        assert!(points.len() <= MOST_DOTS + 1);
        assert!(points.iter().any(|point| point.1 == 99.0));
        assert_eq!(throughput(&[2.0; 200]).matches("<rect").count(), 200);
        let long = throughput(&[2.0; 1000]);
        assert!(!long.contains("<rect") && long.contains("class=\"line"));
    }
}
