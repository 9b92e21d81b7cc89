//! The command line.

use std::env::{self, VarError};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use broker::BrokerUrl;
use clap::{Args, Parser, Subcommand};

use crate::exit::Failure;
use crate::load::{Mix, Plan};
use crate::manual::Manual;
use crate::order::{Currency, Details, OrderEvent, Price, Status, new_order_id};
use crate::output::Format;
use crate::own_exchange::OWN_EXCHANGE;
use crate::publish::Destination;
use crate::trace::Trace;

/// Default exchange, which a host consumes from by default.
const EXCHANGE: &str = "orders";
const EXCHANGE_VARIABLE: &str = "NOTIFY_EXCHANGE";

/// Publish order events to the broker that notify-host consumes from
///
/// Prints the ids of the orders, one per line, once the broker has confirmed them.
/// Exit codes: 0 confirmed, 1 not, 2 wrong usage, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "order-cli", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Broker URL: amqp://USER:PASSWORD@HOST:PORT/VHOST, amqps://…, or sqlite:PATH
    ///
    /// Several amqp URLs, separated by commas, are the nodes of one cluster; any node that works is used. The default
    /// is a file in your state directory, which is also notify-host's default.
    // Parsed later, because clap's error would print the password of a malformed URL.
    #[arg(long, value_name = "URL", env = "NOTIFY_BROKER", hide_env_values = true, global = true)]
    broker: Option<String>,
    /// Exchange to publish to [env: NOTIFY_EXCHANGE] [default: orders; load makes its own]
    ///
    /// The load command ignores the variable: an exchange for everyday use is not meant for a load.
    #[expect(clippy::doc_markdown, reason = "shown on a terminal")]
    // Read from the environment by hand, because the variable only applies to some commands.
    #[arg(long, value_name = "NAME", global = true)]
    exchange: Option<String>,
    /// Time limit for connecting, and for each confirmation
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=3600),
        global = true
    )]
    timeout: u64,
    /// Trace of the published events: a W3C traceparent, or new to begin one for each event
    ///
    /// The value goes into the message header traceparent. Without it a message carries no trace, but
    /// the host may begin one.
    #[arg(long, value_name = "VALUE", global = true)]
    traceparent: Option<Trace>,
    /// Print one JSON object per line
    #[arg(long, global = true)]
    json: bool,
    /// Print no ids and no progress; --json output is still printed
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Publish(Publish),
    #[command(flatten)]
    Manual(Manual),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Publish {
    #[command(flatten)]
    Order(OrderCommand),
    /// Publish the two orders of the tutorial: user123's telephone and user456's notebook
    Demo,
    /// Publish any events from a file, one JSON object per line, byte for byte
    ///
    /// The routing key comes from `event`, else `type`: OrderCreated becomes order.created, other styles are used
    /// unchanged. Bad lines are reported by their number, and the good ones are sent. Prints each event's id.
    #[expect(clippy::doc_markdown, reason = "shown on a terminal")]
    Send {
        /// The file, or - for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Routing key for every event
        #[arg(long, value_name = "KEY")]
        routing_key: Option<String>,
    },
    /// Publish many generated orders, and measure
    ///
    /// Without --exchange the orders go to the exchange order-cli.load and its only queue, which has the same name.
    /// Both are declared if they are missing. No plugin gets these events unless you start a host for that queue, with
    /// the variables NOTIFY_SOURCE_EXCHANGE and NOTIFY_SOURCE_QUEUE set to order-cli.load. Events without a consumer
    /// are removed again. With --exchange they go to every consumer of real orders from that exchange.
    #[expect(clippy::doc_markdown, reason = "shown on a terminal")]
    Load(Load),
}

#[derive(Debug, Subcommand)]
pub(crate) enum OrderCommand {
    /// Publish a new order: order.created
    Create(Create),
    /// Publish that an order was paid: order.paid
    Pay {
        #[command(flatten)]
        order: Known,
        #[command(flatten)]
        money: Money,
    },
    /// Publish that an order was shipped: order.shipped
    Ship {
        #[command(flatten)]
        order: Known,
        /// Carrier
        #[arg(long, value_name = "NAME", value_parser = not_blank)]
        carrier: Option<String>,
        /// Tracking number
        #[arg(long, value_name = "NUMBER", value_parser = not_blank)]
        tracking: Option<String>,
    },
    /// Publish that an order was delivered: order.delivered
    Deliver {
        #[command(flatten)]
        order: Known,
    },
    /// Publish that an order was canceled: order.canceled
    Cancel {
        #[command(flatten)]
        order: Known,
        /// Reason
        #[arg(long, value_name = "TEXT", value_parser = not_blank)]
        reason: Option<String>,
    },
    /// Publish that an order was refunded: order.refunded
    Refund {
        #[command(flatten)]
        order: Known,
        #[command(flatten)]
        money: Money,
        /// Reason
        #[arg(long, value_name = "TEXT", value_parser = not_blank)]
        reason: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Customer id
    #[arg(long, value_name = "ID", value_parser = not_blank)]
    user: String,
    /// Product name
    #[arg(long, value_name = "NAME", value_parser = not_blank)]
    product: String,
    /// Number of items
    #[arg(long, value_name = "N")]
    quantity: Option<NonZeroU32>,
    #[command(flatten)]
    money: Money,
    /// Order id; a new UUID by default
    #[arg(long, value_name = "ID", value_parser = not_blank)]
    order_id: Option<String>,
}

/// An order that was created before.
#[derive(Debug, Args)]
pub(crate) struct Known {
    /// Order id
    #[arg(value_name = "ORDER_ID", value_parser = not_blank)]
    order_id: String,
    /// Customer id
    #[arg(long, value_name = "ID", value_parser = not_blank)]
    user: Option<String>,
    /// Product name
    #[arg(long, value_name = "NAME", value_parser = not_blank)]
    product: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Money {
    /// Amount, like 1999.90
    #[arg(long, value_name = "AMOUNT", requires = "currency")]
    price: Option<Price>,
    /// Currency, like EUR
    #[arg(long, value_name = "CODE", requires = "price")]
    currency: Option<Currency>,
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Number of events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Events per second; by default as fast as they are confirmed
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// Weights of the statuses created, paid, shipped, delivered, canceled and refunded
    #[arg(long, value_name = "MIX", default_value = "created=80,paid=15,canceled=5")]
    mix: Mix,
    /// Seed; the same seed makes the same orders, the default is random
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Maximum number of unconfirmed events
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,
    /// Print the order id of every confirmed event as well
    #[arg(long)]
    ids: bool,
}

impl Load {
    /// Returns the plan of the load. `global` tells whether an exchange was named.
    pub(crate) fn into_plan(self, global: &Global) -> Plan {
        let Self { count, rate, mix, seed, window, ids } = self;
        Plan { count, rate, mix, seed, window: usize::from(window), ids, own_queue: global.exchange.is_none() }
    }
}

impl Global {
    pub(crate) fn destination(&self, command: &Publish) -> Result<Destination, Failure> {
        let broker = match &self.broker {
            Some(url) => url.parse::<BrokerUrl>()?,
            None => BrokerUrl::default_for_user().ok_or(Failure::NoBroker)?,
        };
        let exchange = match (&self.exchange, command) {
            (Some(named), _) => named.clone(),
            (None, Publish::Load(_)) => OWN_EXCHANGE.to_owned(),
            (None, _) => match env::var(EXCHANGE_VARIABLE) {
                Ok(named) => named,
                Err(VarError::NotPresent) => EXCHANGE.to_owned(),
                Err(VarError::NotUnicode(_)) => return Err(Failure::ExchangeVariable),
            },
        };
        let (timeout, trace) = (Duration::from_secs(self.timeout), self.traceparent.clone());
        Ok(Destination { broker, exchange, timeout, trace })
    }

    pub(crate) fn format(&self) -> Format {
        match (self.json, self.quiet) {
            (true, _) => Format::Json,
            (false, true) => Format::Quiet,
            (false, false) => Format::Text,
        }
    }
}

impl OrderCommand {
    pub(crate) fn into_event(self) -> OrderEvent {
        match self {
            Self::Create(Create { user, product, quantity, money, order_id }) => OrderEvent {
                status: Status::Created,
                order_id: order_id.unwrap_or_else(new_order_id),
                user_id: Some(user),
                product: Some(product),
                details: Details { quantity: quantity.map(NonZeroU32::get), ..money.into_details() },
            },
            Self::Pay { order, money } => order.became(Status::Paid, money.into_details()),
            Self::Ship { order, carrier, tracking } => {
                order.became(Status::Shipped, Details { carrier, tracking_number: tracking, ..Details::default() })
            }
            Self::Deliver { order } => order.became(Status::Delivered, Details::default()),
            Self::Cancel { order, reason } => order.became(Status::Canceled, Details { reason, ..Details::default() }),
            Self::Refund { order, money, reason } => {
                order.became(Status::Refunded, Details { reason, ..money.into_details() })
            }
        }
    }
}

impl Known {
    fn became(self, status: Status, details: Details) -> OrderEvent {
        OrderEvent { status, order_id: self.order_id, user_id: self.user, product: self.product, details }
    }
}

impl Money {
    fn into_details(self) -> Details {
        Details { price: self.price, currency: self.currency, ..Details::default() }
    }
}

/// Returns the two orders of the tutorial that this system grew from.
pub(crate) fn demo() -> [OrderEvent; 2] {
    [("user123", "iPhone 15"), ("user456", "MacBook Pro")].map(|(user, product)| OrderEvent {
        status: Status::Created,
        order_id: new_order_id(),
        user_id: Some(user.to_owned()),
        product: Some(product.to_owned()),
        details: Details::default(),
    })
}

fn not_blank(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("it is empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| "expected events per second, above zero".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(["order-cli"].iter().chain(line))
    }

    fn json(line: &[&str]) -> String {
        let Command::Publish(Publish::Order(order)) = parse(line).unwrap().command else {
            panic!("{line:?} is no order")
        };
        String::from_utf8(order.into_event().to_json()).unwrap()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn each_command_publishes_its_own_event() {
        for (line, expected) in [
            (
                &["create", "--user", "u", "--product", "p", "--order-id", "7", "--quantity", "2"][..],
                r#"{"event":"OrderCreated","order_id":"7","user_id":"u","product":"p","quantity":2}"#,
            ),
            (
                &["pay", "7", "--price", "9.50", "--currency", "usd"],
                r#"{"event":"OrderPaid","order_id":"7","user_id":null,"product":null,"price":9.50,"currency":"USD"}"#,
            ),
            (
                &["ship", "7", "--user", "u", "--carrier", "DHL", "--tracking", "42"],
                r#"{"event":"OrderShipped","order_id":"7","user_id":"u","product":null,"carrier":"DHL","tracking_number":"42"}"#,
            ),
            (&["deliver", "7"], r#"{"event":"OrderDelivered","order_id":"7","user_id":null,"product":null}"#),
            (
                &["cancel", "7", "--reason", "late"],
                r#"{"event":"OrderCanceled","order_id":"7","user_id":null,"product":null,"reason":"late"}"#,
            ),
            (
                &["refund", "7", "--product", "p"],
                r#"{"event":"OrderRefunded","order_id":"7","user_id":null,"product":"p"}"#,
            ),
        ] {
            assert_eq!(json(line), expected, "{line:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for (line, kind) in [
            (&["create", "--user", "u"][..], ErrorKind::MissingRequiredArgument),
            (&["create", "--user", " ", "--product", "p"], ErrorKind::ValueValidation),
            (&["create", "--user", "u", "--product", "p", "--quantity", "0"], ErrorKind::ValueValidation),
            (&["pay", "7", "--price", "9.50"], ErrorKind::MissingRequiredArgument),
            (&["pay", "7", "--price", "free", "--currency", "EUR"], ErrorKind::ValueValidation),
            (&["cancel"], ErrorKind::MissingRequiredArgument),
            (&["demo", "--timeout", "0"], ErrorKind::ValueValidation),
            (&["demo", "--traceparent", "00"], ErrorKind::ValueValidation),
            (&["send"], ErrorKind::MissingRequiredArgument),
            (&["load"], ErrorKind::MissingRequiredArgument),
            (&["load", "--count", "0"], ErrorKind::ValueValidation),
            (&["load", "--count", "1", "--rate", "0"], ErrorKind::ValueValidation),
            (&["load", "--count", "1", "--rate", "inf"], ErrorKind::ValueValidation),
            (&["load", "--count", "1", "--mix", "made=1"], ErrorKind::ValueValidation),
            (&["load", "--count", "1", "--window", "0"], ErrorKind::ValueValidation),
            (&["explode"], ErrorKind::InvalidSubcommand),
        ] {
            assert_eq!(parse(line).unwrap_err().kind(), kind, "{line:?}");
        }
    }

    #[test]
    fn a_load_goes_elsewhere_than_orders_unless_an_exchange_is_named() {
        for (line, exchange, own_queue) in [
            (&["load", "--count", "1"][..], OWN_EXCHANGE, true),
            (&["load", "--count", "1", "--exchange", "orders"], "orders", false),
            (&["--exchange", "mine", "load", "--count", "1"], "mine", false),
        ] {
            let Arguments { global, command } = parse(&[line, &["--broker", "sqlite:q.db"]].concat()).unwrap();
            let Command::Publish(command) = command else { panic!("{line:?} publishes nothing") };
            assert_eq!(global.destination(&command).unwrap().exchange, exchange, "{line:?}");
            let Publish::Load(load) = command else { panic!("{line:?} is no load") };
            assert_eq!(load.into_plan(&global).own_queue, own_queue, "{line:?}");
        }
    }

    #[test]
    fn the_help_says_where_a_load_goes() {
        let mut command = Arguments::command();
        let help = command.find_subcommand_mut("load").unwrap().render_long_help().to_string();
        assert!(help.contains(OWN_EXCHANGE) && help.contains("NOTIFY_SOURCE_QUEUE"), "{help}");
    }

    #[test]
    fn a_wrong_broker_is_told_without_its_password() {
        let arguments = parse(&["demo", "--broker", "http://me:hunter2@localhost"]).unwrap();
        let Command::Publish(command) = &arguments.command else { panic!("it publishes nothing") };
        let failure = arguments.global.destination(command).unwrap_err();
        assert_eq!(failure.code(), 2);
        assert!(!failure.to_string().contains("hunter2"), "{failure}");
    }
}
