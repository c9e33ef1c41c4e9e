//! How cost grows: with handlers at a time, with subscriptions, with the size of a batch, and memory with time.

mod load;
mod picture;

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use self::load::Round;
pub use self::picture::{Curve, Picture};
use crate::load::State;
use crate::stats::{Spread, rounded};

const HANDLERS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
const SUBSCRIPTIONS: [usize; 7] = [1, 3, 10, 30, 100, 300, 1000];
const BATCHES: [usize; 9] = [1, 3, 10, 30, 100, 300, 1000, 3000, 10_000];
const STATES: [(&str, State); 2] = [("untraced", State::Untraced), ("sampled", State::Sampled)];
const WARM_UP: usize = 3;
/// The steady load, in seconds.
const SECONDS: usize = 60;

/// All pictures.
#[derive(Clone, Debug)]
pub struct Growth(Vec<Picture>);

/// Measures all curves; a point is the median of so many rounds.
#[must_use]
pub fn measure(rounds: usize) -> Growth {
    let lines = |sizes, start| lines(sizes, start, rounds);
    let per_message = "ns per message";
    // First, while nothing else has left memory behind.
    let resident = load::memory(SECONDS);
    let mut pictures = vec![
        Picture {
            name: "handlers",
            title: "Handlers at a time",
            across: "handlers at a time",
            up: per_message,
            log: true,
            curves: lines(&HANDLERS, load::handlers),
        },
        Picture {
            name: "subscriptions",
            title: "Subscriptions of one app",
            across: "subscriptions",
            up: per_message,
            log: true,
            curves: lines(&SUBSCRIPTIONS, load::subscriptions),
        },
        Picture {
            name: "batch",
            title: "Messages of a batch",
            across: "messages of a batch",
            up: per_message,
            log: true,
            curves: lines(&BATCHES, load::batch),
        },
    ];
    if !resident.is_empty() {
        pictures.push(Picture {
            name: "memory",
            title: "Memory under steady load",
            across: "seconds",
            up: "resident MiB",
            log: false,
            curves: vec![Curve { name: "sampled and metrics", points: resident }],
        });
    }
    Growth(pictures)
}

/// Measures all points of a picture in turns, so that what else the machine does is no shape in it.
#[allow(clippy::cast_precision_loss)] // numbers of a picture
fn lines(sizes: &[usize], start: fn(State, usize) -> Round, rounds: usize) -> Vec<Curve> {
    let points = STATES.iter().flat_map(|&(_, state)| sizes.iter().map(move |&size| start(state, size)));
    let mut points: Vec<(Round, Vec<f64>)> = points.map(|round| (round, Vec::with_capacity(rounds))).collect();
    for number in 0..WARM_UP + rounds {
        for (round, times) in &mut points {
            let time = round();
            if number >= WARM_UP {
                times.push(time);
            }
        }
    }
    let medians: Vec<f64> = points.into_iter().map(|(_, times)| Spread::of(times).median).collect();
    let curves = STATES.iter().zip(medians.chunks(sizes.len()));
    let point = |(&size, &median): (&usize, &f64)| (size as f64, median);
    curves.map(|(&(name, _), medians)| Curve { name, points: sizes.iter().zip(medians).map(point).collect() }).collect()
}

impl Growth {
    /// Draws each picture into a file of the folder.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn draw(&self, folder: &Path) -> Result<(), Box<dyn Error>> {
        fs::create_dir_all(folder)?;
        self.0.iter().try_for_each(|picture| picture::draw(picture, &folder.join(format!("{}.svg", picture.name))))
    }

    /// Writes the first and the last point of each curve as a table, and shows the pictures.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::from("| what grows | line | from | to |\n| --- | --- | ---: | ---: |\n");
        for picture in &self.0 {
            for curve in &picture.curves {
                let ends = curve.points.first().zip(curve.points.last());
                let Some(((first, from), (last, to))) = ends else { continue };
                let (across, up) = (picture.across, picture.up);
                let _ = writeln!(
                    text,
                    "| {across} | {} | {from:.0} {up} at {first:.0} | {to:.0} {up} at {last:.0} |",
                    curve.name
                );
            }
        }
        for picture in &self.0 {
            let _ = write!(text, "\n![{}: {}]({}.svg)\n", picture.title, picture.up, picture.name);
        }
        text
    }

    /// Writes all points as a list of objects.
    #[must_use]
    pub fn json(&self) -> Value {
        let points = self.0.iter().flat_map(|picture| {
            picture.curves.iter().flat_map(move |curve| {
                curve.points.iter().map(move |&(at, value)| {
                    json!({
                        "picture": picture.name,
                        "line": curve.name,
                        "at": rounded(at),
                        "value": rounded(value),
                        "unit": picture.up,
                    })
                })
            })
        });
        points.collect()
    }
}
