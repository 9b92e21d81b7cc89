//! order-cli publishes order events: one, a file of them, or a measured load.
//!
//! It prints an id only after the broker has confirmed the message; anything unconfirmed is an error. It connects
//! to the broker that the host consumes from. It declares nothing there except the exchange and queue of a load
//! without `--exchange`.

mod cli;
mod event;
mod exit;
mod lines;
mod load;
mod manual;
mod order;
mod output;
mod own_exchange;
mod publish;
mod send;
mod trace;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use tokio::runtime::Runtime;

use crate::cli::{Arguments, Command, Publish};
use crate::exit::Failure;
use crate::order::OrderEvent;
use crate::output::{Output, Published};
use crate::publish::{Publisher, order_message};

/// Runs the command line.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(said) => return exit::of_arguments(&said),
    };
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return exit::conclude(Err(Failure::Start(error))),
    };
    let code = exit::conclude(runtime.block_on(execute(arguments)));
    // A blocking read of standard input cannot be cancelled, so do not wait for it.
    runtime.shutdown_background();
    code
}

async fn execute(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { global, command } = arguments;
    let command = match command {
        // This command needs no broker.
        Command::Manual(manual) => return manual.make(Arguments::command()),
        Command::Publish(publish) => publish,
    };
    let mut output = Output::stdout(global.format());
    let destination = global.destination(&command)?;
    // Open the file first, so that a missing file is reported before anything is sent.
    let work = match command {
        Publish::Order(order) => Work::Orders(vec![order.into_event()]),
        Publish::Demo => Work::Orders(cli::demo().to_vec()),
        Publish::Send { file, routing_key } => Work::Send(send::open(file).await?, routing_key),
        Publish::Load(load) => Work::Load(load.into_plan(&global)),
    };
    let publisher = Publisher::connect(destination).await?;
    let result = match work {
        Work::Orders(events) => publish_orders(&publisher, &mut output, events).await,
        Work::Send(input, key) => send::send(&publisher, &mut output, input, key.as_deref(), interrupt()).await,
        Work::Load(plan) => load::run(&publisher, &mut output, &plan, interrupt()).await,
    };
    publisher.close().await;
    result
}

/// The work to do once there is a broker.
enum Work {
    Orders(Vec<OrderEvent>),
    Send(send::Input, Option<String>),
    Load(load::Plan),
}

/// Returns when the user presses Ctrl-C.
async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler, the default action of the signal ends the process.
        std::future::pending::<()>().await;
    }
}

async fn publish_orders(publisher: &Publisher, output: &mut Output, events: Vec<OrderEvent>) -> Result<(), Failure> {
    for event in events {
        let message = publisher.mark(order_message(&event));
        let routing_key = event.status.routing_key();
        publisher.publish(routing_key, &message).await?;
        output.published(&Published { order_id: Some(&event.order_id), ..Published::new(routing_key, &message) })?;
    }
    Ok(())
}
