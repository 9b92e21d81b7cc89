//! Generates the events of an imaginary shop: customers, products, and orders with a realistic life cycle.
//!
//! Every later event belongs to an order that was created before, with the same customer and product. The same seed
//! and mix produce the same events.

use fake::Fake as _;
use fake::faker::internet::en::Username;
use fake::rand::rngs::StdRng;
use fake::rand::seq::IndexedRandom as _;
use fake::rand::{RngExt as _, SeedableRng as _};
use uuid::Builder;

use super::Mix;
use crate::order::{Currency, Details, OrderEvent, Price, Status};

/// Maximum number of remembered orders that later events can refer to.
const OPEN_ORDERS_MAX: usize = 4096;
const QUANTITY_MAX: u32 = 3;

/// Products with their prices in cents.
const PRODUCTS: [(&str, u32); 12] = [
    ("iPhone 15", 94_900),
    ("MacBook Pro", 249_900),
    ("AirPods Pro", 27_900),
    ("Kindle Paperwhite", 16_999),
    ("Mechanical keyboard", 12_990),
    ("4K monitor, 27\"", 42_900),
    ("USB-C cable, 2 m", 1_290),
    ("Espresso machine", 59_900),
    ("Bücherregal „Eiche“", 18_950),
    ("Наушники беспроводные", 7_490),
    ("コーヒーミル", 5_480),
    ("Rain jacket", 8_995),
];

/// Generates events.
#[derive(Debug)]
pub(crate) struct Shop {
    mix: Mix,
    random: StdRng,
    open: Vec<Order>,
}

#[derive(Clone, Debug)]
struct Order {
    id: String,
    user: String,
    product: &'static str,
    quantity: u32,
    cents: u32,
}

impl Shop {
    /// Opens a shop without any orders.
    pub(crate) fn new(mix: Mix, seed: u64) -> Self {
        Self { mix, random: StdRng::seed_from_u64(seed), open: Vec::new() }
    }

    /// Generates the next event.
    pub(crate) fn next_event(&mut self) -> OrderEvent {
        let status = self.mix.pick(self.random.random_range(0..self.mix.total()));
        let order = match status {
            Status::Created => self.order(),
            Status::Paid | Status::Shipped => self.open_order(),
            Status::Delivered | Status::Canceled | Status::Refunded => self.close_order(),
        };
        event(status, order)
    }

    fn order(&mut self) -> Order {
        let order = self.new_order();
        if self.open.len() < OPEN_ORDERS_MAX {
            self.open.push(order.clone());
        } else {
            let at = self.random.random_range(0..self.open.len());
            self.open[at] = order.clone();
        }
        order
    }

    /// Picks an open order. If there is none, makes up one from before the shop opened.
    fn open_order(&mut self) -> Order {
        self.open.choose(&mut self.random).cloned().unwrap_or_else(|| self.new_order())
    }

    fn close_order(&mut self) -> Order {
        if self.open.is_empty() {
            return self.new_order();
        }
        let at = self.random.random_range(0..self.open.len());
        self.open.swap_remove(at)
    }

    fn new_order(&mut self) -> Order {
        let (product, cents) = *PRODUCTS.choose(&mut self.random).unwrap_or(&PRODUCTS[0]);
        let quantity = self.random.random_range(1..=QUANTITY_MAX);
        Order {
            id: Builder::from_random_bytes(self.random.random()).into_uuid().to_string(),
            user: Username().fake_with_rng(&mut self.random),
            product,
            quantity,
            cents: cents * quantity,
        }
    }
}

fn event(status: Status, order: Order) -> OrderEvent {
    let money = || Details {
        price: Some(Price::from_cents(order.cents)),
        currency: Some(Currency::euro()),
        ..Details::default()
    };
    let details = match status {
        Status::Created => Details { quantity: Some(order.quantity), ..money() },
        Status::Paid | Status::Refunded => money(),
        Status::Shipped | Status::Delivered | Status::Canceled => Details::default(),
    };
    OrderEvent {
        status,
        order_id: order.id,
        user_id: Some(order.user),
        product: Some(order.product.to_owned()),
        details,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;

    fn events(mix: &str, seed: u64, count: usize) -> Vec<OrderEvent> {
        let mut shop = Shop::new(mix.parse().unwrap(), seed);
        (0..count).map(|_| shop.next_event()).collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_events() {
        let json = |seed| -> Vec<_> {
            events("created=80,paid=15,canceled=5", seed, 200).iter().map(OrderEvent::to_json).collect()
        };
        assert_eq!(json(1), json(1));
        assert_ne!(json(1), json(2));
    }

    #[test]
    fn each_status_comes_as_often_as_the_mix_says() {
        let mut counts: BTreeMap<Status, u32> = BTreeMap::new();
        for event in events("created=80,paid=15,canceled=5", 1, 10_000) {
            *counts.entry(event.status).or_default() += 1;
        }
        for (status, expected) in [(Status::Created, 8_000), (Status::Paid, 1_500), (Status::Canceled, 500)] {
            assert!(counts[&status].abs_diff(expected) < 200, "{status:?}: {}", counts[&status]);
        }
        assert_eq!(counts.len(), 3);
    }

    #[test]
    fn what_becomes_of_an_order_is_told_with_its_own_customer_and_product() {
        let mut created = HashMap::new();
        for event in events("created=3,paid=2,shipped=1,delivered=1,canceled=1,refunded=1", 1, 5_000) {
            let who_and_what = (event.user_id, event.product);
            match event.status {
                Status::Created => assert!(created.insert(event.order_id, who_and_what).is_none()),
                Status::Paid | Status::Shipped | Status::Delivered | Status::Canceled | Status::Refunded => {
                    if let Some(known) = created.get(&event.order_id) {
                        assert_eq!(*known, who_and_what);
                    }
                }
            }
        }
        assert!(created.len() > 1_000);
    }

    #[test]
    fn a_mix_without_creations_makes_no_creations() {
        assert!(events("paid=1,canceled=1", 1, 100).iter().all(|event| event.status != Status::Created));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut shop = Shop::new("created=1".parse().unwrap(), 1);
        for _ in 0..2 * OPEN_ORDERS_MAX {
            shop.next_event();
        }
        assert_eq!(shop.open.len(), OPEN_ORDERS_MAX);
    }
}
