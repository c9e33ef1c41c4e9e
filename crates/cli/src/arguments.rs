//! What stands on the command line.

use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Shows what message-driven services do.
#[derive(Debug, Parser)]
#[command(name = "throughline", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    View(View),
}

/// Receives traces, metrics and logs over OTLP, and draws each trace in the terminal.
///
/// Services of any language send to it: set OTEL_EXPORTER_OTLP_ENDPOINT to http://localhost:4318, or to http://localhost:4317 for gRPC.
/// Both ports take both protocols. The Enter key draws the metrics; Ctrl-C draws what is left and the metrics, and ends.
#[derive(Args, Debug)]
pub(crate) struct View {
    /// The address to listen on; 0.0.0.0 lets everybody send who reaches this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) listen: IpAddr,

    /// The port that services expect to speak gRPC; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 4317)]
    pub(crate) grpc_port: u16,

    /// The port that services expect to speak HTTP; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 4318)]
    pub(crate) http_port: u16,

    /// Show only traces in which this service takes part; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Vec<String>,

    /// Show only traces with an error
    #[arg(long)]
    pub(crate) errors: bool,

    /// Show only traces that take at least this long, such as 200ms
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) slower_than: Option<Duration>,

    /// Show this attribute as baggage of the trace; may be given several times. Attributes that begin with `baggage.` always are
    #[arg(long, value_name = "KEY")]
    pub(crate) baggage: Vec<String>,

    /// How long a trace must be silent to be drawn
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    pub(crate) quiet: Duration,

    /// How long to wait for what is missing: the parent of a span, or what becomes of a published message. Most services send
    /// every 5 seconds
    #[arg(long, value_name = "TIME", default_value = "6s", value_parser = time)]
    pub(crate) wait: Duration,

    /// Write a line of JSON for each trace, and everything else to the standard error
    #[arg(long)]
    pub(crate) json: bool,

    /// Use no colours. They are used in a terminal, unless NO_COLOR is set or TERM is `dumb`
    #[arg(long)]
    pub(crate) no_color: bool,

    /// The number of columns, at least 40; without it that of the terminal, else COLUMNS, else 100
    #[arg(long, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(40..=1000))]
    pub(crate) width: Option<u16>,
}

/// Reads a number with a unit.
fn time(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|sign: char| !sign.is_ascii_digit() && sign != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit.trim() {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => f64::NAN,
    };
    let seconds = number.parse::<f64>().unwrap_or(f64::NAN) * factor;
    Duration::try_from_secs_f64(seconds).ok().filter(|time| *time <= LONGEST).ok_or_else(|| {
        "write a number and a unit (us, ms, s or m), such as 200ms, 1.5s or 2m; at most 1440m".to_owned()
    })
}

/// A day. A longer time is a slip of the pen.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{CommandFactory, Parser};

    use super::{Arguments, Command, time};

    #[test]
    fn the_options_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn nothing_has_to_be_said() {
        let Command::View(view) = Arguments::try_parse_from(["throughline", "view"]).unwrap().command;
        assert_eq!((view.grpc_port, view.http_port), (4317, 4318));
        assert!(view.listen.is_loopback());
        assert_eq!(view.quiet, Duration::from_secs(1));
    }

    #[test]
    fn times_have_a_unit() {
        for (text, millis) in [("200ms", 200), ("1.5s", 1500), ("2m", 120_000), ("5000us", 5), ("0s", 0)] {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "ms", "-1s", "1h", "1..5s", "nans", "infs", "99999999m", "1e400s", "٣s"] {
            assert!(time(text).unwrap_err().contains("200ms"), "{text}");
        }
    }

    #[test]
    fn a_value_that_is_not_allowed_says_which_are() {
        let error = |option: &str, value: &str| {
            Arguments::try_parse_from(["throughline", "view", option, value]).unwrap_err().to_string()
        };
        assert!(error("--slower-than", "200").contains("such as 200ms"));
        assert!(error("--width", "10").contains("40..=1000"));
        assert!(error("--grpc-port", "70000").contains("0..=65535"));
        assert!(error("--listen", "nowhere").contains("--listen <ADDRESS>"));
    }
}
