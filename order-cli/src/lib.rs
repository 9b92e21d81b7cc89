//! order-cli publishes order events: one, a file of them, or a measured load.
//!
//! Every message is confirmed by the broker before its id is printed, and what is not confirmed is an
//! error. It talks to the broker that the host consumes from, and declares nothing there itself.

mod cli;
mod exit;
mod order;
mod output;
mod publish;

use std::process::ExitCode;

use clap::Parser as _;
use tokio::runtime::Runtime;

use crate::cli::{Arguments, Command};
use crate::exit::Failure;
use crate::order::OrderEvent;
use crate::output::{Output, Published};
use crate::publish::{Publisher, order_message};

/// Does what the command line asks.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return exit::conclude(Err(Failure::Start(error))),
    };
    let code = exit::conclude(runtime.block_on(execute(arguments)));
    // A read of standard input cannot be called back, and is not waited for.
    runtime.shutdown_background();
    code
}

async fn execute(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { global, command } = arguments;
    let mut output = Output::stdout(global.format());
    let publisher = Publisher::connect(global.destination()?).await?;
    let result = match command {
        Command::Order(order) => publish_orders(&publisher, &mut output, vec![order.into_event()]).await,
        Command::Demo => publish_orders(&publisher, &mut output, cli::demo().to_vec()).await,
    };
    publisher.close().await;
    result
}

async fn publish_orders(publisher: &Publisher, output: &mut Output, events: Vec<OrderEvent>) -> Result<(), Failure> {
    for event in events {
        let message = order_message(&event);
        let routing_key = event.status.routing_key();
        publisher.publish(routing_key, &message).await?;
        output.published(&Published { order_id: Some(&event.order_id), ..Published::new(routing_key, &message) })?;
    }
    Ok(())
}
