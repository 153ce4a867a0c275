//! The plot: CPU time for each message as dots on a logarithmic axis, a row for each cell.

use std::fmt::Write as _;

use anyhow::Context;

use super::kind::Kind;
use super::results::Results;

const WIDTH: f64 = 780.0;
/// Where the axis begins and ends.
const LEFT: f64 = 120.0;
const RIGHT: f64 = 690.0;
/// Where the first row may begin.
const TOP: f64 = 88.0;
const ROW: f64 = 21.0;
const HEADING: f64 = 34.0;
const FOOT: f64 = 46.0;

const STYLE: &str = "<style>\
text{font:13px system-ui,sans-serif;fill:#33322f}\
.title{font-size:15px;font-weight:600;fill:#0b0b0b}.heading{font-weight:600;fill:#0b0b0b}\
.end{text-anchor:end}.middle{text-anchor:middle}\
.back{fill:#fcfcfb}.grid{stroke:#e2e1dc}.span{stroke:#c3c2b7;stroke-width:2}\
.a{fill:#2a78d6}.b{fill:#d9571f}.c{fill:#85847d}.d{fill:#2c8a4b}\
.mark{stroke:#fcfcfb;stroke-width:1.5}\
@media(prefers-color-scheme:dark){text{fill:#c9c8c2}.title,.heading{fill:#fff}\
.back{fill:#1a1a19}.grid{stroke:#33332f}.span{stroke:#55544e}\
.a{fill:#4c97ee}.b{fill:#ee7a47}.c{fill:#a3a29a}.d{fill:#4fb372}.mark{stroke:#1a1a19}}\
</style>";

/// The logarithmic axis, in microseconds.
struct Axis {
    first_decade: i32,
    last_decade: i32,
}

impl Axis {
    fn over(results: &[Results]) -> anyhow::Result<Self> {
        let values = || results.iter().flat_map(|class| &class.measured).map(|row| row.cpu_us);
        let least = values().reduce(f64::min).context("nothing was measured")?;
        let most = values().reduce(f64::max).context("nothing was measured")?;
        Ok(Self {
            first_decade: least.max(1.0).log10().floor() as i32,
            last_decade: most.max(1.0).log10().ceil() as i32,
        })
    }

    fn x(&self, microseconds: f64) -> f64 {
        let decades = f64::from(self.last_decade - self.first_decade).max(1.0);
        let part = (microseconds.max(1.0).log10() - f64::from(self.first_decade)) / decades;
        LEFT + part * (RIGHT - LEFT)
    }
}

/// The plot as a file of its own, for light and dark pages.
pub(super) fn svg(results: &[Results]) -> anyhow::Result<String> {
    let axis = Axis::over(results)?;
    let rows: usize = results.iter().map(|class| class.class.cells.len()).sum();
    let end = TOP + rows as f64 * ROW + results.len() as f64 * HEADING;
    let height = end + FOOT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
         aria-label=\"CPU time for each message, by system\">\n{STYLE}\n\
         <rect class=\"back\" width=\"{WIDTH}\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"16\" y=\"28\">Server CPU time for each message</text>\n"
    );
    legend(&mut svg)?;
    grid(&mut svg, &axis, end)?;
    let mut y = TOP;
    for class in results {
        write_class(&mut svg, &axis, class, &mut y)?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn legend(svg: &mut String) -> anyhow::Result<()> {
    let mut x = 24.0;
    for kind in Kind::ALL {
        mark(svg, kind, x, 51.0)?;
        writeln!(svg, "<text x=\"{}\" y=\"55.5\">{}</text>", x + 12.0, kind.name())?;
        x += 40.0 + 7.5 * kind.name().len() as f64;
    }
    writeln!(
        svg,
        "<text class=\"end\" x=\"{}\" y=\"55.5\">Postfix+rspamd ÷ Mailweir</text>",
        WIDTH - 16.0
    )?;
    Ok(())
}

fn grid(svg: &mut String, axis: &Axis, end: f64) -> anyhow::Result<()> {
    for decade in axis.first_decade..=axis.last_decade {
        let x = axis.x(10f64.powi(decade));
        let label = match decade {
            6.. => format!("{} s", 10u64.pow(decade.unsigned_abs() - 6)),
            3..=5 => format!("{} ms", 10u64.pow(decade.unsigned_abs() - 3)),
            _ => format!("{} µs", 10f64.powi(decade)),
        };
        writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{end}\"/>\
             <text class=\"middle\" x=\"{x:.1}\" y=\"{}\">{label}</text>",
            end + 17.0
        )?;
    }
    writeln!(
        svg,
        "<text class=\"middle\" x=\"{}\" y=\"{}\">user and system time of all its processes, \
         logarithmic; less is better</text>",
        f64::midpoint(LEFT, RIGHT),
        end + 36.0
    )?;
    Ok(())
}

fn write_class(
    svg: &mut String,
    axis: &Axis,
    results: &Results,
    y: &mut f64,
) -> anyhow::Result<()> {
    writeln!(
        svg,
        "<text class=\"heading\" x=\"16\" y=\"{}\">{} messages; connections × messages on \
         each</text>",
        *y + HEADING - 12.0,
        results.class.name
    )?;
    *y += HEADING;
    for cell in &results.class.cells {
        let middle = *y + ROW / 2.0;
        let of = |kind| {
            let cpu = results.spread(kind, *cell, |row| row.cpu_us);
            cpu.map(|cpu| (kind, cpu.median))
        };
        let values: Vec<_> = Kind::ALL.into_iter().filter_map(of).collect();
        let xs = || values.iter().map(|(_, value)| axis.x(*value));
        let least = xs().reduce(f64::min).unwrap_or(LEFT);
        let most = xs().reduce(f64::max).unwrap_or(LEFT);
        writeln!(
            svg,
            "<text class=\"end\" x=\"{}\" y=\"{}\">{}</text>\
             <line class=\"span\" x1=\"{least:.1}\" x2=\"{most:.1}\" y1=\"{middle}\" \
             y2=\"{middle}\"/>",
            LEFT - 16.0,
            middle + 4.5,
            cell.name()
        )?;
        for (kind, value) in values.iter().rev() {
            mark(svg, *kind, axis.x(*value), middle)?;
        }
        let ratio = super::report::cpu_ratio(results, *cell, Kind::PostfixRspamd);
        let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.1}×"));
        let (x, y_text) = (WIDTH - 16.0, middle + 4.5);
        writeln!(svg, "<text class=\"end\" x=\"{x}\" y=\"{y_text}\">{ratio}</text>")?;
        *y += ROW;
    }
    Ok(())
}

/// A system's dot; its shape tells it from the others without colour.
fn mark(svg: &mut String, kind: Kind, x: f64, y: f64) -> anyhow::Result<()> {
    match kind {
        Kind::Mailweir => {
            writeln!(svg, "<circle class=\"mark a\" cx=\"{x:.1}\" cy=\"{y}\" r=\"6\"/>")?;
        }
        Kind::PostfixRspamd => writeln!(
            svg,
            "<rect class=\"mark b\" x=\"{:.1}\" y=\"{}\" width=\"11\" height=\"11\"/>",
            x - 5.5,
            y - 5.5
        )?,
        Kind::Postfix => {
            writeln!(svg, "<path class=\"mark c\" d=\"M{x:.1} {}l7 7l-7 7l-7 -7z\"/>", y - 7.0)?
        }
        Kind::HarakaDovecot => {
            writeln!(svg, "<path class=\"mark d\" d=\"M{x:.1} {}l7 12h-14z\"/>", y - 7.0)?
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_has_a_mark_of_its_own() {
        let mut shapes = Vec::new();
        for kind in Kind::ALL {
            let mut svg = String::new();
            mark(&mut svg, kind, 100.0, 50.0).expect("writes");
            let class = svg.split("class=\"mark ").nth(1).and_then(|rest| rest.get(..1));
            let class = class.expect("a class").to_owned();
            assert!(
                STYLE.matches(&format!(".{class}{{fill:")).count() == 2,
                "light and dark: {svg}"
            );
            assert!(!shapes.contains(&class), "{svg}");
            shapes.push(class);
        }
        let mut svg = String::new();
        legend(&mut svg).expect("writes");
        assert!(Kind::ALL.iter().all(|kind| svg.contains(&format!(">{}<", kind.name()))), "{svg}");
    }
}
