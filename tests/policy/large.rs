//! Policies that ask much: what `check` lets pass, scan can answer, and nothing panics.

use tailkeep::policy::Policy;
use tailkeep::scan::Questions;
use tailkeep::trace::RuleNames;
use tailkeep::trace::question::FACTS_MAX;

/// Items of `except`, of `also` and rules; each of them asks so many questions of its own, and one that all share.
#[derive(Clone, Copy, Debug)]
struct Size {
    except: usize,
    also: usize,
    rules: usize,
    /// Tests of one condition.
    tests: usize,
}

impl Size {
    fn text(self) -> String {
        let condition = |kind: &str, number: usize| {
            let own: Vec<String> = (0..self.tests).map(|test| format!("k{test}: {kind}{number}")).collect();
            format!("{{ name: shared, attributes: {{ {} }} }}", own.join(", "))
        };
        let list = |kind: &str, count: usize| {
            let items: Vec<String> = (0..count).map(|number| condition(kind, number)).collect();
            if items.is_empty() { String::new() } else { format!("  {kind}: [{}]\n", items.join(", ")) }
        };
        let errors = list("except", self.except) + &list("also", self.also);
        let errors = if errors.is_empty() { errors } else { format!("errors:\n{errors}") };
        let rule = |number| {
            format!("  - {{ name: r{number}, when: {{ any_span: {} }}, keep: all }}\n", condition("rule", number))
        };
        let rules: String = (0..self.rules).map(rule).collect();
        let rules = if rules.is_empty() { rules } else { format!("rules:\n{rules}") };
        format!("version: 1\n{errors}{rules}otherwise: {{ keep: 1% }}\n")
    }

    fn is_within(self) -> bool {
        let conditions = self.except + self.also + self.rules;
        conditions <= FACTS_MAX && (conditions == 0 || conditions * self.tests < FACTS_MAX)
    }

    fn all() -> impl Iterator<Item = Size> {
        const COUNTS: [usize; 7] = [0, 1, 127, 128, 255, 256, 257];
        let sizes = |tests| {
            COUNTS.into_iter().flat_map(move |except| {
                COUNTS
                    .into_iter()
                    .flat_map(move |also| COUNTS.into_iter().map(move |rules| Size { except, also, rules, tests }))
            })
        };
        [1, 2].into_iter().flat_map(sizes).filter(|size| size.except + size.also + size.rules < 300)
    }
}

#[test]
fn what_is_not_refused_can_be_asked() {
    let mut within = 0;
    for size in Size::all() {
        let (policy, diagnostics) = Policy::compile("p", &size.text(), 1, &mut RuleNames::default());
        let codes: Vec<&str> =
            diagnostics.iter().map(|diagnostic| diagnostic.code).filter(|code| *code == "P14").collect();
        assert_eq!((policy.is_some(), codes.len()), (size.is_within(), usize::from(!size.is_within())), "{size:?}");
        if let Some(policy) = policy {
            within += 1;
            assert!(Questions::compile(&policy.conditions, &[], 1).is_ok(), "{size:?}");
        }
    }
    assert!(within > 20, "{within}");
}

#[test]
fn what_two_policies_ask_together_is_refused_where_the_second_goes_beyond() {
    let in_force = Size { except: 0, also: 0, rules: 200, tests: 1 };
    let in_force = Policy::compile("p", &in_force.text(), 1, &mut RuleNames::default()).0.expect("it is within");
    for (except, fits) in [(55, true), (56, false), (255, false)] {
        let text = Size { except, also: 0, rules: 0, tests: 1 }.text();
        let (policy, diagnostics) = in_force.compile_beside("q", &text, &mut RuleNames::default());
        assert_eq!(policy.is_some(), fits, "{except}");
        let titles: Vec<&str> = diagnostics.iter().map(|diagnostic| diagnostic.title.as_str()).collect();
        let beyond = "the policy asks more than 256 different questions of spans, together with the policy in force";
        assert_eq!(titles, if fits { vec![] } else { vec![beyond] }, "{except}");
    }
}
