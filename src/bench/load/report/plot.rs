//! Plots as SVG: axes, grid, and points as a line, steps, dots or bars.
//!
//! Colours are classes, so that the page decides them for light and dark.

use std::fmt::Write;

use super::number;

/// A plot.
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    pub(super) x: Axis<'a>,
    pub(super) y: Axis<'a>,
    pub(super) series: Vec<Series<'a>>,
}

/// One direction of a plot.
pub(super) struct Axis<'a> {
    pub(super) label: &'a str,
    /// Equal factors are equally far apart, if every value allows it and they spread far enough to need it.
    pub(super) may_be_log: bool,
}

/// Points that belong together.
pub(super) struct Series<'a> {
    /// For the legend; it is shown if there is more than one.
    pub(super) name: &'a str,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) marks: Marks,
}

/// How points are drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    Line,
    /// A value holds until the next.
    Steps,
    Dots,
    /// Of width 1, to the right of their x.
    Bars,
}

impl Plot<'_> {
    /// The plot as an `<svg>` element; a sentence if there is nothing to draw.
    pub(super) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        if points().next().is_none() {
            return format!("<p class=\"empty\">{}: nothing to show.</p>", self.title);
        }
        let has_bars = self.series.iter().any(|series| series.marks == Marks::Bars);
        let width = if has_bars { 1.0 } else { 0.0 };
        let x = Scale::over(
            points().flat_map(|point| [point.0, point.0 + width]),
            &self.x,
            (LEFT, WIDTH - RIGHT),
        );
        let y = Scale::over(
            points().map(|point| point.1),
            &self.y,
            (HEIGHT - BOTTOM, TOP),
        );
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            self.title
        );
        self.axes(&x, &y, &mut svg);
        for (index, series) in self.series.iter().enumerate() {
            series.draw(index, &x, &y, &mut svg);
        }
        if self.series.len() > 1 {
            self.legend(&mut svg);
        }
        svg + "</svg>"
    }

    fn axes(&self, x: &Scale, y: &Scale, svg: &mut String) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for tick in x.ticks() {
            let at = x.place(tick);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/><text class=\"x\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
                bottom + 16.0,
                tick_text(tick)
            );
        }
        for tick in y.ticks() {
            let at = y.place(tick);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/><text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                tick_text(tick)
            );
        }
        let middle = (LEFT + right) / 2.0;
        let _ = write!(
            svg,
            "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>\
             <text class=\"x label\" x=\"{middle}\" y=\"{:.1}\">{}</text>\
             <text class=\"label\" x=\"{LEFT}\" y=\"{:.1}\">{}</text>",
            HEIGHT - 6.0,
            self.x.label,
            TOP - 8.0,
            self.y.label,
        );
    }

    fn legend(&self, svg: &mut String) {
        for (index, series) in self.series.iter().enumerate() {
            let at = WIDTH - RIGHT - 90.0 * (self.series.len() - index) as f64;
            let _ = write!(
                svg,
                "<circle class=\"dot s{index}\" cx=\"{at}\" cy=\"{:.1}\" r=\"4\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                TOP - 12.0,
                at + 8.0,
                TOP - 8.0,
                series.name
            );
        }
    }
}

impl Series<'_> {
    fn draw(&self, index: usize, x: &Scale, y: &Scale, svg: &mut String) {
        let places = self
            .points
            .iter()
            .map(|(along, up)| (x.place(*along), y.place(*up)));
        match self.marks {
            Marks::Dots => {
                for (along, up) in places {
                    let _ = write!(
                        svg,
                        "<circle class=\"dot s{index}\" cx=\"{along:.1}\" cy=\"{up:.1}\" r=\"2\"/>"
                    );
                }
            }
            Marks::Bars => {
                let floor = HEIGHT - BOTTOM;
                for ((along, up), (start, _)) in places.zip(&self.points) {
                    let width = (x.place(start + 1.0) - along - 1.0).max(0.5);
                    let _ = write!(
                        svg,
                        "<rect class=\"bar s{index}\" x=\"{along:.1}\" y=\"{up:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>",
                        (floor - up).max(0.0)
                    );
                }
            }
            Marks::Line | Marks::Steps => {
                let mut path = String::new();
                let mut height = None;
                for (along, up) in places {
                    let _ = match height {
                        None => write!(path, "M{along:.1} {up:.1}"),
                        Some(_) if self.marks == Marks::Line => {
                            write!(path, "L{along:.1} {up:.1}")
                        }
                        Some(_) => write!(path, "H{along:.1}V{up:.1}"),
                    };
                    height = Some(up);
                }
                let _ = write!(svg, "<path class=\"line s{index}\" d=\"{path}\"/>");
            }
        }
    }
}

/// From values to places.
#[derive(Debug, Clone, Copy)]
struct Scale {
    low: f64,
    high: f64,
    is_log: bool,
    from: f64,
    to: f64,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64>, axis: &Axis, place: (f64, f64)) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite()) {
            least = least.min(value);
            most = most.max(value);
        }
        let is_log = axis.may_be_log && least > 0.0 && most / least > LOG_FROM;
        let (low, high) = if is_log {
            (least, most)
        } else {
            (0.0, if most > 0.0 { most } else { 1.0 })
        };
        Self {
            low,
            high,
            is_log,
            from: place.0,
            to: place.1,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let part = if self.is_log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + (self.to - self.from) * part.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.is_log {
            let first = self.low.log10().floor() as i32;
            let last = self.high.log10().ceil() as i32;
            let steps: &[f64] = if last - first > 3 {
                &[1.0]
            } else {
                &[1.0, 2.0, 5.0]
            };
            return (first..=last)
                .flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)))
                .filter(|tick| (self.low..=self.high).contains(tick))
                .collect();
        }
        let step = nice_step((self.high - self.low) / 5.0);
        let count = (self.high / step * (1.0 + 1e-9)).floor() as usize;
        (0..=count).map(|place| place as f64 * step).collect()
    }
}

/// The least of 1, 2, 5, 10, … × a power of ten that is at least `rough`.
fn nice_step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|step| step * power >= rough * (1.0 - 1e-9));
    step.unwrap_or(10.0) * power
}

fn tick_text(value: f64) -> String {
    if value == 0.0 || value >= 1000.0 {
        return number(value).replace("0.00", "0");
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;
/// Values whose greatest is this many times their least are seen only on a logarithmic axis.
const LOG_FROM: f64 = 20.0;

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Axis = Axis {
        label: "",
        may_be_log: false,
    };
    const LOG: Axis = Axis {
        label: "",
        may_be_log: true,
    };

    fn scale(values: &[f64], axis: &Axis) -> Scale {
        Scale::over(values.iter().copied(), axis, (0.0, 100.0))
    }

    #[test]
    fn ticks_are_round_numbers_within_the_values() {
        assert_eq!(
            scale(&[3.0, 9.7], &PLAIN).ticks(),
            [0.0, 2.0, 4.0, 6.0, 8.0]
        );
        assert_eq!(
            scale(&[0.0, 1000.0], &PLAIN).ticks(),
            [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]
        );
        let log = scale(&[0.7, 30.0], &LOG).ticks();
        for (tick, wanted) in log.iter().zip([1.0, 2.0, 5.0, 10.0, 20.0]) {
            assert!((tick - wanted).abs() < 1e-9, "{log:?}");
        }
        assert_eq!(log.len(), 5);
    }

    #[test]
    fn an_axis_is_logarithmic_only_where_it_helps_and_can_be() {
        assert!(scale(&[1.0, 50.0], &LOG).is_log);
        assert!(!scale(&[1.0, 5.0], &LOG).is_log);
        assert!(!scale(&[0.0, 50.0], &LOG).is_log);
        assert!(!scale(&[1.0, 50.0], &PLAIN).is_log);
    }

    #[test]
    fn places_run_from_end_to_end() {
        let plain = scale(&[0.0, 10.0], &PLAIN);
        assert_eq!([plain.place(0.0), plain.place(5.0)], [0.0, 50.0]);
        let log = scale(&[1.0, 100.0], &LOG);
        assert!((log.place(10.0) - 50.0).abs() < 1e-9);
    }

    fn plot(points: Vec<(f64, f64)>, marks: Marks) -> String {
        Plot {
            title: "t",
            x: PLAIN,
            y: LOG,
            series: vec![Series {
                name: "n",
                points,
                marks,
            }],
        }
        .svg()
    }

    #[test]
    fn every_way_to_draw_has_its_marks_and_finite_places() {
        let points = vec![(0.0, 0.0), (1.0, 3.0), (2.0, 1.0)];
        for (marks, wanted, times) in [
            (Marks::Dots, "<circle", 3),
            (Marks::Bars, "<rect", 3),
            (Marks::Line, "L", 2),
            (Marks::Steps, "V", 2),
        ] {
            let svg = plot(points.clone(), marks);
            let drawn = svg.split("s0\"").skip(1).collect::<String>();
            let found = if wanted.starts_with('<') {
                svg.matches(wanted).count()
            } else {
                drawn.matches(wanted).count()
            };
            assert_eq!(found, times, "{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn one_point_or_none_is_no_trouble() {
        let svg = plot(vec![(0.0, 0.0)], Marks::Line);
        assert!(svg.contains("<svg") && !svg.contains("NaN"), "{svg}");
        assert!(plot(Vec::new(), Marks::Line).contains("nothing to show"));
    }
}
