//! Traces as waterfalls and metrics as tables, in lines of text.
//!
//! The console of `throughline-export` and the viewer `throughline view` draw with it.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//!
//! use opentelemetry::trace::{SpanId, TraceId};
//! use throughline_waterfall::{Screen, Span, Trace};
//!
//! let start = SystemTime::UNIX_EPOCH;
//! let publish = Span::new(TraceId::from(1), SpanId::from(2), "shop", "publish orders", start, start + Duration::from_millis(3));
//! let screen = Screen::new(Box::new(Vec::new()), false, 80);
//! if let Some(trace) = Trace::new(vec![publish], &[], false) {
//!     assert!(trace.draw(&screen).contains("shop publish orders"));
//! }
//! ```
//!
//! | to draw | take |
//! | --- | --- |
//! | a trace | [`Span`]s and [`Remark`]s, then [`Trace::new`] and [`Trace::draw`] |
//! | several traces | [`in_order`] |
//! | metrics | [`Series`], then [`table`] |
//! | anything else | [`clean`], then [`Screen::write`] |

mod family;
mod order;
mod queue;
mod scale;
mod screen;
mod series;
mod span;
mod style;
mod table;
mod trace;
mod waterfall;

pub use order::in_order;
pub use screen::Screen;
pub use series::{Measured, Series};
pub use span::{Event, Link, Remark, Span};
pub use style::{clean, is_harmful};
pub use table::table;
pub use trace::{Row, Trace};
