//! Drawings as SVG: stacked bars, and lines over two logarithmic axes. Made by hand: what is needed is little.
use std::fmt::Write;

/// Colours that people who see few of them can tell apart (Okabe and Ito).
const COLOURS: [&str; 9] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000", "#f0e442"];
const ROW: f64 = 18.0;
const LEFT: f64 = 170.0;
const WIDTH: f64 = 860.0;
const PLOT: f64 = 560.0;

/// One bar of several parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What it is of.
    pub label: String,
    /// How long each part is.
    pub parts: Vec<f64>,
}

/// Bars that are compared: they have one scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What they have in common.
    pub label: String,
    /// The bars.
    pub bars: Vec<Bar>,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What it is of.
    pub label: String,
    /// Its points, x and y, both above zero.
    pub points: Vec<(f64, f64)>,
}

/// What the axes of lines are about.
#[derive(Clone, Copy, Debug)]
pub struct Axes<'a> {
    /// To the right.
    pub x: &'a str,
    /// Upwards.
    pub y: &'a str,
    /// A value of the first axis, for people.
    pub show_x: fn(f64) -> String,
    /// A value of the second.
    pub show_y: fn(f64) -> String,
}

/// Text as XML has it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn colour(number: usize) -> &'static str {
    COLOURS[number % COLOURS.len()]
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#, escaped(words));
}

fn begin(height: f64, title: &str) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <title>{0}</title>\n<rect width=\"{WIDTH}\" height=\"{height:.0}\" fill=\"#ffffff\"/>\n",
        escaped(title)
    );
    let _ = writeln!(svg, r#"<text x="10" y="20" font-size="14">{}</text>"#, escaped(title));
    svg
}

fn legend(svg: &mut String, y: f64, names: &[&str]) {
    let mut x = 10.0;
    for (number, name) in names.iter().enumerate() {
        let _ = writeln!(svg, r#"<rect x="{x:.1}" y="{y:.1}" width="10" height="10" fill="{}"/>"#, colour(number));
        text(svg, (x + 14.0, y + 9.0), "start", name);
        x += 30.0 + 6.5 * name.chars().count() as f64;
    }
}

/// Bars, group by group, each group to its own scale; at the end of each bar stands how long it is in all.
#[must_use]
pub fn stacked_bars(title: &str, parts: &[&str], groups: &[Group], show: fn(f64) -> String) -> String {
    let rows: usize = groups.iter().map(|group| group.bars.len() + 2).sum();
    let mut svg = begin(60.0 + ROW * rows as f64, title);
    legend(&mut svg, 32.0, parts);
    let mut y = 60.0;
    for group in groups {
        let length = |bar: &Bar| bar.parts.iter().copied().filter(|part| *part > 0.0).sum::<f64>();
        let longest = group.bars.iter().map(length).fold(f64::MIN_POSITIVE, f64::max);
        y += ROW;
        let _ = writeln!(svg, r#"<text x="10" y="{y:.1}" font-weight="bold">{}</text>"#, escaped(&group.label));
        y += ROW / 3.0;
        for bar in &group.bars {
            text(&mut svg, (LEFT - 6.0, y + 11.0), "end", &bar.label);
            let mut x = LEFT;
            for (number, part) in bar.parts.iter().enumerate().filter(|(_, part)| **part > 0.0) {
                let width = part / longest * PLOT;
                let _ = writeln!(
                    svg,
                    r#"<rect x="{x:.2}" y="{y:.1}" width="{width:.2}" height="13" fill="{}"/>"#,
                    colour(number)
                );
                x += width;
            }
            text(&mut svg, (x + 5.0, y + 11.0), "start", &show(length(bar)));
            y += ROW;
        }
        y += ROW * 2.0 / 3.0;
    }
    svg.push_str("</svg>\n");
    svg
}

/// Where a value lies on a logarithmic axis of so many pixels.
fn place((low, high): (f64, f64), pixels: f64, value: f64) -> f64 {
    let span = (high / low).ln();
    if span > 0.0 { (value / low).ln() / span * pixels } else { pixels / 2.0 }
}

/// Whole powers of ten around all values.
fn decades(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let values: Vec<f64> = values.filter(|value| *value > 0.0 && value.is_finite()).collect();
    let low = values.iter().copied().reduce(f64::min)?;
    let high = values.iter().copied().reduce(f64::max)?;
    let (low, high) = (low.log10().floor(), high.log10().ceil());
    Some((10_f64.powf(low), 10_f64.powf(if high > low { high } else { low + 1.0 })))
}

/// Lines over two logarithmic axes. Points that are not above zero are left out.
#[must_use]
pub fn lines(title: &str, axes: &Axes<'_>, series: &[Series]) -> String {
    const HEIGHT: f64 = 300.0;
    const TOP: f64 = 40.0;
    let bottom = TOP + HEIGHT;
    let mut svg = begin(bottom + 60.0 + ROW * series.len().div_ceil(4) as f64, title);
    let points = || series.iter().flat_map(|line| line.points.iter());
    let (Some(across), Some(up)) = (decades(points().map(|point| point.0)), decades(points().map(|point| point.1)))
    else {
        svg.push_str("</svg>\n");
        return svg;
    };
    let at = |(x, y): (f64, f64)| (90.0 + place(across, PLOT + 120.0, x), bottom - place(up, HEIGHT, y));
    let mut tick = up.0;
    while tick <= up.1 * 1.01 {
        let y = at((across.0, tick)).1;
        let (from, to) = (90.0, 90.0 + PLOT + 120.0);
        let _ = writeln!(svg, r##"<path d="M{from:.1} {y:.1}H{to:.1}" stroke="#dddddd"/>"##);
        text(&mut svg, (84.0, y + 4.0), "end", &(axes.show_y)(tick));
        tick *= 10.0;
    }
    let mut marks: Vec<f64> = points().map(|point| point.0).filter(|value| *value > 0.0).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for mark in marks {
        text(&mut svg, (at((mark, up.0)).0, bottom + 16.0), "middle", &(axes.show_x)(mark));
    }
    text(&mut svg, (WIDTH / 2.0, bottom + 34.0), "middle", axes.x);
    text(&mut svg, (WIDTH - 10.0, 20.0), "end", axes.y);
    for (number, line) in series.iter().enumerate() {
        let shown: Vec<(f64, f64)> =
            line.points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0).map(|point| at(*point)).collect();
        let path: Vec<String> = shown.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let colour = colour(number);
        let _ =
            writeln!(svg, r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#, path.join(" "));
        for (x, y) in &shown {
            let _ = writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#);
        }
    }
    for (number, names) in series.chunks(4).enumerate() {
        let y = bottom + 46.0 + ROW * number as f64;
        for (place, line) in names.iter().enumerate() {
            let x = 90.0 + 180.0 * place as f64;
            let colour = colour(number * 4 + place);
            let _ = writeln!(svg, r#"<rect x="{x:.1}" y="{y:.1}" width="10" height="10" fill="{colour}"/>"#);
            text(&mut svg, (x + 14.0, y + 9.0), "start", &line.label);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether every element that is begun is ended, in order, and no text would be taken for one.
    pub(crate) fn is_well_formed(svg: &str) -> bool {
        let mut open = Vec::new();
        for part in svg.split('<').skip(1) {
            let Some((tag, words)) = part.split_once('>') else { return false };
            if words.contains('>') || tag.matches('"').count() % 2 != 0 || words.replace("&amp;", "").contains("& ") {
                return false;
            }
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
            match (tag.starts_with('/'), tag.ends_with('/')) {
                (true, _) if open.pop() != Some(name) => return false,
                (true, _) | (false, true) => {}
                (false, false) => open.push(name),
            }
        }
        open.is_empty() && svg.starts_with("<svg ")
    }

    fn show(value: f64) -> String {
        format!("{value:.0} <ms> & more")
    }

    #[test]
    fn bars_are_well_formed_and_as_long_as_they_should_be() {
        let bar = |label: &str, parts: &[f64]| Bar { label: label.to_owned(), parts: parts.to_vec() };
        let bars = vec![bar("one", &[1.0, 3.0]), bar("a<b", &[2.0, 0.0]), bar("none", &[0.0, -1.0])];
        let groups = [Group { label: "10 \"Mbit\"".to_owned(), bars }, Group { label: "x".to_owned(), bars: vec![] }];
        let svg = stacked_bars("times & <periods>", &["before", "after"], &groups, show);
        assert!(is_well_formed(&svg), "{svg}");
        assert!(svg.contains(r#"width="140.00""#) && svg.contains(r#"width="420.00""#), "{svg}");
        assert!(svg.contains("a&lt;b"), "{svg}");
    }

    #[test]
    fn lines_are_well_formed_whatever_the_points_are() {
        let axes = Axes { x: "memory", y: "down time", show_x: show, show_y: show };
        let line = |points: &[(f64, f64)]| Series { label: "post-copy".to_owned(), points: points.to_vec() };
        for points in [&[][..], &[(1.0, 1.0)], &[(0.0, 3.0), (4.0, -1.0)], &[(1.0, 0.1), (1e9, 1e5), (1e10, 3.0)]] {
            let svg = lines("down & out", &axes, &[line(points), line(&[])]);
            assert!(is_well_formed(&svg) && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn a_value_lies_between_its_decades() {
        assert_eq!(decades([3.0, 250.0].into_iter()), Some((1.0, 1000.0)));
        assert!((place((1.0, 100.0), 200.0, 10.0) - 100.0).abs() < 1e-9);
    }
}
