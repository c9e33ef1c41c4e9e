//! How what is exported waits, and in which portions it leaves.

use std::sync::Arc;
use std::time::Duration;

#[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
use opentelemetry_sdk::logs::{self, BatchLogProcessor, LogExporter};
use opentelemetry_sdk::trace::{self, BatchSpanProcessor, SpanExporter};

use crate::environment::Environment;
use crate::tally::{Counted, Tally};

/// How many items wait at most where nobody says.
const ROOM: usize = 2048;

/// The SDK sets memory aside for as many: about 30 MB.
const MOST_ROOM: usize = 65_536;

/// How many items leave together at most where nobody says.
const SIZE: usize = 512;

/// How the items of one signal wait for their export.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batches {
    /// How many may wait; more are dropped.
    room: usize,
    size: usize,
    delay: Duration,
    /// How long an export may take, where the environment says that of the processor.
    pub(crate) timeout: Option<Duration>,
}

impl Batches {
    /// Those of spans.
    // ENV-06, ENV-07.
    pub(crate) fn of_spans(environment: &mut Environment<'_>) -> Self {
        Self::read("OTEL_BSP", Duration::from_secs(5), environment)
    }

    /// Those of log records.
    // ENV-08.
    #[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
    pub(crate) fn of_logs(environment: &mut Environment<'_>) -> Self {
        Self::read("OTEL_BLRP", Duration::from_secs(1), environment)
    }

    fn read(prefix: &str, delay: Duration, environment: &mut Environment<'_>) -> Self {
        let room = format!("{prefix}_MAX_QUEUE_SIZE");
        let said = environment.positive(&room).unwrap_or(ROOM);
        if said > MOST_ROOM {
            environment.warn(format!("{room}={said} is more than {MOST_ROOM}, for which there is room; that is used"));
        }
        let room = said.min(MOST_ROOM);
        let size = environment.positive(&format!("{prefix}_MAX_EXPORT_BATCH_SIZE")).unwrap_or(SIZE).min(room);
        let delay = environment.millis(&format!("{prefix}_SCHEDULE_DELAY")).unwrap_or(delay);
        let timeout = environment.millis(&format!("{prefix}_EXPORT_TIMEOUT"));
        Self { room, size, delay, timeout }
    }

    /// A processor whose spans wait like this and are counted.
    pub(crate) fn span_processor<E: SpanExporter + 'static>(
        self,
        exporter: Counted<E>,
        tally: &Arc<Tally>,
    ) -> Counted<BatchSpanProcessor> {
        let config = trace::BatchConfigBuilder::default().with_max_queue_size(self.room);
        let config = config.with_max_export_batch_size(self.size).with_scheduled_delay(self.delay).build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        Counted::processor(processor, tally, self.room)
    }

    /// A processor whose log records wait like this and are counted.
    #[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
    pub(crate) fn log_processor<E: LogExporter + 'static>(
        self,
        exporter: Counted<E>,
        tally: &Arc<Tally>,
    ) -> Counted<BatchLogProcessor> {
        let config = logs::BatchConfigBuilder::default().with_max_queue_size(self.room);
        let config = config.with_max_export_batch_size(self.size).with_scheduled_delay(self.delay).build();
        let processor = BatchLogProcessor::builder(exporter).with_batch_config(config).build();
        Counted::processor(processor, tally, self.room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Batches, Vec<String>) {
        let lookup =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let mut environment = Environment::new(&lookup);
        (Batches::of_spans(&mut environment), environment.into_warnings())
    }

    #[test]
    fn the_environment_says_how_items_wait() {
        let variables = [
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "30"),
        ];
        let (batches, warnings) = read(&variables);
        assert_eq!((batches.room, batches.size, batches.delay), (100, 10, Duration::from_millis(20)));
        assert_eq!((batches.timeout, warnings.len()), (Some(Duration::from_millis(30)), 0));
        let (batches, _) = read(&[("OTEL_BSP_MAX_QUEUE_SIZE", "100")]);
        assert_eq!((batches.room, batches.size), (100, 100), "a batch is no larger than what waits");
    }

    #[test]
    fn the_most_room_is_as_much_memory_as_is_said() {
        assert!(size_of::<trace::SpanData>() * MOST_ROOM < 40_000_000, "{}", size_of::<trace::SpanData>());
    }

    // ENV-15.
    #[test]
    fn what_is_out_of_reason_is_a_warning_and_the_bound() {
        let (batches, warnings) = read(&[("OTEL_BSP_MAX_QUEUE_SIZE", "1000000000")]);
        assert_eq!((batches.room, warnings.len()), (MOST_ROOM, 1), "{warnings:?}");
        assert!(warnings[0].starts_with("OTEL_BSP_MAX_QUEUE_SIZE=1000000000"), "{warnings:?}");
        for name in ["MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE", "SCHEDULE_DELAY", "EXPORT_TIMEOUT"] {
            let name = format!("OTEL_BSP_{name}");
            for value in ["0", "-1", "many"] {
                let (batches, warnings) = read(&[(&name, value)]);
                assert_eq!((batches.room, batches.size, batches.timeout), (ROOM, SIZE, None), "{name}={value}");
                assert_eq!(warnings.len(), 1, "{name}={value}: {warnings:?}");
            }
        }
    }
}
