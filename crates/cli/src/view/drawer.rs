//! The thread that draws: what receives never waits for the terminal.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use throughline_waterfall::{clean, in_order, table};

use super::held::Loose;
use super::hold::{Hold, Ready};
use super::json;
use super::output::Output;
use super::tally::Losses;
use crate::arguments::View;

/// What the thread is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    /// Draw the metrics.
    Metrics,
    /// Draw what is left, and end.
    End,
}

#[derive(Debug)]
pub(super) struct Drawer {
    hold: Arc<Hold>,
    output: Output,
    json: bool,
    /// How often to look.
    pause: Duration,
    /// The losses that were told of.
    told: Losses,
}

impl Drawer {
    pub(super) fn new(hold: Arc<Hold>, output: Output, options: &View) -> Self {
        let pause = (options.quiet / 4).clamp(Duration::from_millis(10), Duration::from_millis(250));
        Self { hold, output, json: options.json, pause, told: Losses::default() }
    }

    /// Draws until it is told to end. Fails when the output cannot be written.
    pub(super) fn run(mut self, orders: &Receiver<Order>) -> io::Result<()> {
        loop {
            match orders.recv_timeout(self.pause) {
                Err(RecvTimeoutError::Timeout) => self.draw(self.hold.ready(Instant::now()))?,
                Ok(Order::Metrics) => {
                    self.draw(self.hold.ready(Instant::now()))?;
                    self.draw_metrics()?;
                }
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
            self.tell_of_losses();
        }
        if io::stderr().is_terminal() {
            // Below the `^C`.
            eprintln!();
        }
        self.draw(self.hold.rest())?;
        self.draw_metrics()?;
        eprint!("{}", self.hold.tally());
        Ok(())
    }

    fn draw(&self, ready: Ready) -> io::Result<()> {
        let aside = self.output.aside();
        for record in &ready.loose {
            aside.write(&self.line(record));
        }
        for trace in in_order(ready.traces) {
            let picture = if self.json { json::line(&trace) } else { trace.draw(&self.output.traces) };
            self.output.traces.write(&picture);
        }
        self.output.traces.outcome()?;
        aside.outcome()
    }

    /// A record that stands alone: service, text, and its trace.
    fn line(&self, record: &Loose) -> String {
        let trace = record.trace.map(|id| format!("  (trace {:.8})", id.to_string())).unwrap_or_default();
        self.output.aside().line(&record.service, &format!("{}{trace}", clean(&record.text)))
    }

    fn draw_metrics(&self) -> io::Result<()> {
        let aside = self.output.aside();
        aside.write(&table(&self.hold.measured(), aside));
        aside.outcome()
    }

    /// Says at once what is lost for the first time; how much it was, is said at the end.
    fn tell_of_losses(&mut self) {
        let losses = self.hold.tally().losses;
        eprint!("{}", losses.new_since(&self.told));
        self.told = losses;
    }
}
