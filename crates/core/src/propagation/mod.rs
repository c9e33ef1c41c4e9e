//! Context propagation: how a trace and its baggage travel in the headers of a message.
//!
//! A service has one [`Propagators`] value, which writes and reads one or more formats:
//!
//! | format | headers | name in `OTEL_PROPAGATORS` | type |
//! |---|---|---|---|
//! | W3C Trace Context | `traceparent`, `tracestate` | `tracecontext` (default) | [`TraceContextPropagator`] |
//! | W3C Baggage | `baggage` | `baggage` (default) | [`BaggagePropagator`] |
//! | B3, one header | `b3` | `b3` | [`B3Propagator::single`] |
//! | B3, several headers | `X-B3-*` | `b3multi` | [`B3Propagator::multi`] |
//! | Jaeger | `uber-trace-id`, `uberctx-*` | `jaeger` | [`JaegerPropagator`] |
//! | none | none | `none` | [`Propagators::none`] |
//!
//! Any other [`TextMapPropagator`](opentelemetry::propagation::TextMapPropagator) is added with [`Propagators::with`],
//! or used in its place. [`Headers`](crate::Headers) are read and written by them directly.
//!
//! Whatever stands in the headers of a message, reading it neither fails nor panics: what cannot be understood is
//! treated as absent. CloudEvents' `ce_traceparent` is not read, it describes the start of the journey and
//! not the last hop. Personal or secret data does not belong in baggage: every service behind this one sees
//! it.
//!
//! # Examples
//!
//! ```
//! use opentelemetry::Context;
//! use opentelemetry::propagation::TextMapPropagator;
//! use opentelemetry::trace::TraceContextExt;
//! use throughline_core::Headers;
//! use throughline_core::propagation::{Propagators, inject};
//!
//! let propagators = Propagators::from_env();
//! let mut incoming = Headers::new();
//! incoming.append("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
//!
//! let cx = propagators.extract_with_context(&Context::new(), &incoming);
//! assert!(cx.span().span_context().is_remote());
//!
//! let mut outgoing = Headers::new();
//! inject(&propagators, &cx, &mut outgoing);
//! assert_eq!(outgoing.get("traceparent"), incoming.get("traceparent"));
//! ```

mod b3;
pub mod baggage;
mod carrier;
mod composite;
mod hex;
mod jaeger;
mod limits;
pub mod lookup;
mod names;
mod native;
mod percent;
mod trace_context;
mod trace_state;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use b3::B3Propagator;
pub use baggage::BaggagePropagator;
pub use carrier::{Carrier, admit, inject, is_writable, refused_headers};
pub(crate) use composite::Remote;
pub use composite::{Propagators, UnknownPropagator};
pub use jaeger::JaegerPropagator;
pub use limits::dropped_members;
pub use names::{header_name, holds_one_context, is_propagation_header};
pub use native::{NativeCarrier, NativeExtractor, NativeInjector};
pub use trace_context::TraceContextPropagator;
