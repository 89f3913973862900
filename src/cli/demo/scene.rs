//! The demo's mesh file: who exists and who may call what. A person reads it, so it is written for people.

use std::path::Path;

/// What the text depends on.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    /// The user who runs the demo, as `run_by` takes it: a name, or a number.
    pub(crate) user: &'a serde_json::Value,
    /// Where demo/orders listens.
    pub(crate) orders: u16,
    /// Where demo/quotes would listen; nobody starts it.
    pub(crate) quotes: u16,
    /// Where demo/checkout listens.
    pub(crate) checkout: &'a Path,
}

impl Scene<'_> {
    /// Writes the mesh file.
    pub(crate) fn mesh(&self) -> String {
        let Self {
            user, orders, quotes, ..
        } = self;
        let checkout = serde_json::Value::from(format!("unix:{}", self.checkout.display()));
        format!(
            r#"# The demo's mesh: two hosts, web-1 and web-2. Everything that no rule allows is refused.
version: 1
trust_domain: demo.internal

bots:
  demo/checkout:
    owner: shop@demo.internal
    hosts: [web-1]
    attest: {{run_by: [{user}]}}
    serve: {{http: {checkout}}}
  demo/orders:
    owner: shop@demo.internal
    hosts: [web-2]
    attest: {{run_by: [{user}]}}
    serve: {{http: {orders}}}
  demo/report:
    owner: data@demo.internal
    hosts: [web-2]
    attest: {{run_by: [{user}]}}
  demo/quotes:
    owner: market@demo.internal
    hosts: [web-2]
    attest: {{run_by: [{user}]}}
    serve: {{http: {quotes}}}

allow:
  - id: checkout-reads-orders
    from: demo/checkout
    to: demo/orders
    http: [GET /orders/*, POST /refunds]
  - id: report-reads-health
    from: demo/report
    to: demo/checkout
    http: [GET /healthz]
  - id: checkout-reads-quotes
    from: demo/checkout
    to: demo/quotes
    http: [GET /quotes/*]
deny:
  - id: nobody-touches-admin
    from: "**"
    to: demo/**
    http: ["* /admin/**"]
    reason: the admin API is for people only

tests:
  - name: checkout reads an order and changes none
    from: demo/checkout
    to: demo/orders
    allow: [GET /orders/17, POST /refunds]
    deny: [DELETE /orders/17, GET /orders/17/items, GET /admin/keys]
  - name: report sees health and no orders
    from: demo/report
    to: demo/checkout
    allow: [GET /healthz]
    deny: [GET /orders/17]
"#
        )
    }
}

#[cfg(test)]
mod tests {
    use policy::Source;
    use spiffe::time::Timestamp;

    use super::*;

    #[test]
    fn the_demos_mesh_is_valid_without_a_warning_and_its_tests_pass() {
        for user in [serde_json::json!("root"), serde_json::json!(1000)] {
            let scene = Scene {
                user: &user,
                orders: 9001,
                quotes: 9002,
                checkout: Path::new("/tmp/a b/c.sock"),
            };
            let name = "mesh.yaml".to_owned();
            let source = Source {
                name,
                text: scene.mesh(),
            };
            let mesh = policy::load(&[source]).unwrap_or_else(|errors| panic!("{}", errors.render(false)));
            assert!(mesh.warnings().is_empty(), "{}", mesh.warnings().render(false));
            let report = mesh.run_tests(Timestamp::from_unix_millis(0));
            assert_eq!(report.failed(), 0, "{}", report.render(false));
        }
    }
}
