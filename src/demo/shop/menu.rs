//! What customers and machines ask of the shop, and the calls that each request makes.

use super::{Need, Service, ShopStep, Work};
use Service::{Cart, Checkout, EmailWorker, Frontend, Inventory, Payment, Search};

/// Requests with their shares of the traffic, which add up to 1.
static MENU: [(f64, ShopStep); 9] = [
    (0.24, serve(Frontend, "GET", "/", 6.0, &[suggestions()])),
    (0.20, serve(Frontend, "GET", "/products/{id}", 7.0, &[stock(), suggestions()])),
    (0.16, serve(Frontend, "GET", "/search", 5.0, &[full_text()])),
    (0.12, serve(Frontend, "GET", "/cart", 4.0, &[read_cart(Frontend)])),
    (0.07, serve(Frontend, "POST", "/cart", 5.0, &[add_to_cart()])),
    (0.04, serve(Frontend, "POST", "/checkout", 8.0, &[checkout()])),
    (0.08, serve(Frontend, "GET", "/healthz", 0.3, &[])),
    (0.0895, serve(Payment, "GET", "/healthz", 0.4, &[])),
    (0.0005, compute(Inventory, "restock", 1500.0, &[query(Inventory, "postgresql", "UPDATE", "stock", 300.0)])),
];

/// The request that `fraction` (0..1) falls on.
pub(super) fn pick(fraction: f64) -> &'static ShopStep {
    let mut rest = fraction;
    for (share, step) in &MENU {
        if rest < *share {
            return step;
        }
        rest -= share;
    }
    // The shares may add up to a hair less than 1.
    &MENU[0].1
}

const fn suggestions() -> ShopStep {
    const STEPS: &[ShopStep] =
        &[serve(Search, "GET", "/v1/suggestions", 4.0, &[query(Search, "elasticsearch", "search", "products", 6.0)])];
    ShopStep { need: Need::Optional, ..call(Frontend, "GET", "search", "/v1/suggestions", STEPS) }
}

const fn full_text() -> ShopStep {
    const STEPS: &[ShopStep] = &[serve(
        Search,
        "GET",
        "/v1/search",
        9.0,
        &[
            query(Search, "elasticsearch", "search", "products", 22.0),
            compute(Search, "rank results", 8.0, &[]),
            query(Search, "redis", "SET", "recent searches", 0.8),
        ],
    )];
    call(Frontend, "GET", "search", "/v1/search", STEPS)
}

const fn stock() -> ShopStep {
    const STEPS: &[ShopStep] =
        &[serve(Inventory, "GET", "/v1/stock/{sku}", 2.0, &[query(Inventory, "postgresql", "SELECT", "stock", 3.5)])];
    call(Frontend, "GET", "inventory", "/v1/stock/{sku}", STEPS)
}

const fn read_cart(caller: Service) -> ShopStep {
    const STEPS: &[ShopStep] =
        &[serve(Cart, "GET", "/v1/carts/{id}", 1.5, &[query(Cart, "redis", "HGETALL", "cart", 0.9)])];
    call(caller, "GET", "cart", "/v1/carts/{id}", STEPS)
}

const fn add_to_cart() -> ShopStep {
    const STEPS: &[ShopStep] = &[serve(
        Cart,
        "POST",
        "/v1/carts/{id}/items",
        2.0,
        &[reserve(Cart), query(Cart, "redis", "HSET", "cart", 0.8)],
    )];
    call(Frontend, "POST", "cart", "/v1/carts/{id}/items", STEPS)
}

const fn reserve(caller: Service) -> ShopStep {
    const STEPS: &[ShopStep] = &[serve(
        Inventory,
        "POST",
        "/v1/reservations",
        2.5,
        &[
            query(Inventory, "postgresql", "SELECT", "stock", 3.0),
            query(Inventory, "postgresql", "INSERT", "reservation", 5.0),
        ],
    )];
    call(caller, "POST", "inventory", "/v1/reservations", STEPS)
}

const fn checkout() -> ShopStep {
    const STEPS: &[ShopStep] = &[serve(
        Checkout,
        "POST",
        "/v1/orders",
        6.0,
        &[
            read_cart(Checkout),
            reserve(Checkout),
            charge(),
            query(Checkout, "postgresql", "INSERT", "order", 6.0),
            confirm(),
        ],
    )];
    call(Frontend, "POST", "checkout", "/v1/orders", STEPS)
}

/// The bank is outside, slow, and says no now and then.
const fn charge() -> ShopStep {
    const BANK: ShopStep =
        ShopStep { millis: 95.0, fails: 0.05, ..call(Payment, "POST", "api.bank.example", "/charges", &[]) };
    const STEPS: &[ShopStep] =
        &[serve(Payment, "POST", "/v1/charges", 5.0, &[compute(Payment, "check fraud rules", 9.0, &[]), BANK])];
    call(Checkout, "POST", "payment", "/v1/charges", STEPS)
}

/// The customer does not wait for the mail.
const fn confirm() -> ShopStep {
    const MAIL: ShopStep =
        ShopStep { millis: 240.0, fails: 0.02, ..call(EmailWorker, "POST", "smtp.mail.example", "/messages", &[]) };
    const HANDLE: ShopStep = step(
        EmailWorker,
        Work::Consume { topic: "orders" },
        4.0,
        &[compute(EmailWorker, "render confirmation", 14.0, &[]), MAIL],
    );
    step(Checkout, Work::Publish { topic: "orders" }, 1.2, &[HANDLE])
}

const fn serve(
    service: Service,
    method: &'static str,
    route: &'static str,
    millis: f64,
    steps: &'static [ShopStep],
) -> ShopStep {
    step(service, Work::Serve { method, route }, millis, steps)
}

/// Its own time is that of the network.
const fn call(
    service: Service,
    method: &'static str,
    host: &'static str,
    route: &'static str,
    steps: &'static [ShopStep],
) -> ShopStep {
    step(service, Work::Call { method, host, route }, 0.9, steps)
}

const fn query(
    service: Service,
    system: &'static str,
    operation: &'static str,
    target: &'static str,
    millis: f64,
) -> ShopStep {
    step(service, Work::Query { system, operation, target }, millis, &[])
}

const fn compute(service: Service, name: &'static str, millis: f64, steps: &'static [ShopStep]) -> ShopStep {
    step(service, Work::Compute { name }, millis, steps)
}

const fn step(service: Service, work: Work, millis: f64, steps: &'static [ShopStep]) -> ShopStep {
    ShopStep { service, work, millis, fails: 0.0006, need: Need::Required, steps }
}
