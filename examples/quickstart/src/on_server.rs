//! The story on a real server, which is found or started. The client of each broker is a feature of this package.

use super::Failed;

/// Plays the story on NATS.
#[cfg(feature = "nats")]
pub(crate) fn nats() -> Result<(), Failed> {
    on_nats::run()
}

#[cfg(not(feature = "nats"))]
pub(crate) fn nats() -> Result<(), Failed> {
    Err(built_without("nats"))
}

/// Plays the story on Kafka.
#[cfg(feature = "kafka")]
pub(crate) fn kafka() -> Result<(), Failed> {
    on_kafka::run()
}

#[cfg(not(feature = "kafka"))]
pub(crate) fn kafka() -> Result<(), Failed> {
    Err(built_without("kafka"))
}

/// Plays the story on RabbitMQ.
#[cfg(feature = "rabbit")]
pub(crate) fn rabbit() -> Result<(), Failed> {
    on_rabbit::run()
}

#[cfg(not(feature = "rabbit"))]
pub(crate) fn rabbit() -> Result<(), Failed> {
    Err(built_without("rabbit"))
}

#[cfg(not(all(feature = "kafka", feature = "nats", feature = "rabbit")))]
fn built_without(broker: &str) -> Failed {
    let command = format!("cargo run -p quickstart --features {broker} -- --broker {broker}");
    format!("this program was built without the client of {broker}; this builds it and runs the story there:\n\n    {command}")
        .into()
}

#[cfg(feature = "nats")]
mod on_nats {
    use quickstart::nats;
    use quickstart::story::play;
    use throughline::export::{Telemetry, console};
    use tokio::runtime::Runtime;
    use xtask::{interrupt, servers};

    use super::interrupted;
    use crate::{Failed, cast, finish, tell};

    pub(super) fn run() -> Result<(), Failed> {
        interrupt::install()?;
        let server = servers::nats::find_or_start()?; // stopped when it is dropped, if it was started here
        println!("using {server}");
        Runtime::new()?.block_on(async {
            let telemetry = console().service_name("shop").build()?;
            let result = tokio::select! {
                result = story(server.url(), &telemetry) => result,
                () = interrupted() => Err("interrupted".into()),
            };
            finish(result, &telemetry).await
        })
    }

    async fn story(url: &str, telemetry: &Telemetry) -> Result<(), Failed> {
        let control = nats::connect(url).await?;
        nats::clean_up(&control).await?;
        // A connection each: they are three services.
        let connections = [nats::connect(url).await?, nats::connect(url).await?, nats::connect(url).await?];
        let played = play(cast(telemetry, connections), nats::subscriptions(), tell).await;
        nats::clean_up(&control).await?;
        played.map(drop)
    }
}

#[cfg(feature = "kafka")]
mod on_kafka {
    use quickstart::kafka;
    use quickstart::story::play;
    use throughline::export::{Telemetry, console};
    use tokio::runtime::Runtime;
    use xtask::{interrupt, servers};

    use super::interrupted;
    use crate::{Failed, cast, finish, tell};

    pub(super) fn run() -> Result<(), Failed> {
        interrupt::install()?;
        let server = servers::kafka::find_or_start()?; // stopped when it is dropped, if it was started here
        println!("using {server}");
        Runtime::new()?.block_on(async {
            let telemetry = console().service_name("shop").build()?;
            let result = story(server.url(), &telemetry).await;
            finish(result, &telemetry).await
        })
    }

    async fn story(url: &str, telemetry: &Telemetry) -> Result<(), Failed> {
        let run = kafka::Run::prepare(url).await?;
        let story = async {
            // A connection each: they are three services.
            let connections = [kafka::connect(url).await?, kafka::connect(url).await?, kafka::connect(url).await?];
            play(cast(telemetry, connections), run.subscriptions(), tell).await.map(drop)
        };
        let played = tokio::select! {
            played = story => played,
            () = interrupted() => Err("interrupted".into()),
        };
        run.clean_up().await?;
        played
    }
}

#[cfg(feature = "rabbit")]
mod on_rabbit {
    use quickstart::rabbit;
    use quickstart::story::play;
    use throughline::export::{Telemetry, console};
    use tokio::runtime::Runtime;
    use xtask::{interrupt, servers};

    use super::interrupted;
    use crate::{Failed, cast, finish, tell};

    pub(super) fn run() -> Result<(), Failed> {
        interrupt::install()?;
        let server = servers::rabbit::find_or_start()?; // stopped when it is dropped, if it was started here
        println!("using {server}");
        Runtime::new()?.block_on(async {
            let telemetry = console().service_name("shop").build()?;
            let result = story(server.url(), &telemetry).await;
            finish(result, &telemetry).await
        })
    }

    async fn story(url: &str, telemetry: &Telemetry) -> Result<(), Failed> {
        let run = rabbit::Run::prepare(url).await?;
        let story = async {
            // A connection each: they are three services.
            let connections = [rabbit::connect(url).await?, rabbit::connect(url).await?, rabbit::connect(url).await?];
            play(cast(telemetry, connections), rabbit::subscriptions(), tell).await.map(drop)
        };
        let played = tokio::select! {
            played = story => played,
            () = interrupted() => Err("interrupted".into()),
        };
        run.clean_up().await?;
        played
    }
}

/// Waits for Ctrl-C, which is a flag here so that the server is stopped before the program ends.
#[cfg(any(feature = "kafka", feature = "nats", feature = "rabbit"))]
async fn interrupted() {
    while !xtask::interrupt::requested() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
