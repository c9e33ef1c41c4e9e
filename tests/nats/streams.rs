//! A stream of one test, and what is in it.

use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::stream::{Config, StorageType};
use futures_util::TryStreamExt;
use throughline_nats::{Nats, Stream};

use crate::server;
use crate::witness::unique;

pub(crate) async fn connect() -> Nats {
    let nats = Nats::connect_with(server::url(), server::options()).await;
    nats.expect("a connection to THROUGHLINE_NATS_URL").publish_to_streams()
}

/// A stream of a test with all subjects below its name, and that name.
pub(crate) async fn stream() -> (Nats, String) {
    let nats = connect().await;
    let id = unique();
    create(&nats, of(&id, &format!("{id}.>"))).await;
    (nats, id)
}

/// What a stream with one subject is like.
pub(crate) fn of(name: &str, subject: &str) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        storage: StorageType::Memory,
        ..Config::default()
    }
}

pub(crate) async fn create(nats: &Nats, config: Config) {
    nats.jetstream().create_stream(config).await.expect("a stream");
}

pub(crate) fn durable(id: &str) -> Stream {
    Stream::new(id).durable("stock").filter(format!("{id}.orders"))
}

/// How many messages of a subject below the name of the stream it has.
pub(crate) async fn stored(nats: &Nats, stream: &str, subject: &str) -> usize {
    let found = nats.jetstream().get_stream(stream).await.expect("the stream");
    let filter = format!("{stream}.{subject}");
    let mut subjects = found.info_with_subjects(filter.as_str()).await.expect("its subjects");
    let mut count = 0;
    while let Some(entry) = subjects.try_next().await.expect("a subject") {
        count += entry.1;
    }
    count
}

pub(crate) async fn consumer(nats: &Nats, stream: &str) -> Info {
    let stream = nats.jetstream().get_stream(stream).await.expect("the stream");
    stream.consumer_info("stock").await.expect("the consumer")
}
