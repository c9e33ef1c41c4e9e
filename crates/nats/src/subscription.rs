mod start;
mod stream;
mod subject;

pub use self::start::StartPosition;
pub use self::stream::Stream;
pub use self::subject::Subject;
