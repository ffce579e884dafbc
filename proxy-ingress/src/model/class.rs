//! Which Ingresses are ours.
//!
//! An Ingress names an IngressClass, by its field or by the old annotation, and the class names a controller. Who names none
//! has the default class; the API server writes that into new Ingresses, and manifests in a folder have nobody to do it.

use std::collections::BTreeMap;

use proxy_model::age::Created;
use proxy_model::api::{ApiIngress, ApiIngressClass};

/// What `spec.controller` of our IngressClasses is.
pub const CONTROLLER: &str = "weir.network/ingress";
/// The name that a class has where nobody chose another.
pub const CLASS: &str = "weir";
/// The annotation that was there before the field.
pub const ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Says that an IngressClass is for those who name none.
const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

/// Whom this process serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClassOptions {
    /// The controller whose classes are ours.
    pub controller: String,
    /// A name that the annotation may have without an IngressClass of that name.
    pub class: String,
    /// Ingresses without a class are ours too, if there is no default class.
    pub without_class: bool,
}

impl Default for ClassOptions {
    fn default() -> Self {
        Self {
            controller: CONTROLLER.to_owned(),
            class: CLASS.to_owned(),
            without_class: false,
        }
    }
}

/// All IngressClasses.
#[derive(Debug, Default)]
pub struct Classes {
    by_name: BTreeMap<String, Class>,
}

/// What counts of an IngressClass.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Class {
    controller: String,
    default: bool,
    created: Created,
    parameters: bool,
}

/// Whose an Ingress is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Ours, with what is wrong about its class all the same.
    Ours(Option<String>),
    /// Somebody else's, or nobody's: it is left alone, its status too.
    Others,
    /// Its class is not there: in words.
    Gone(String),
}

impl Classes {
    /// A class is new or different; says whether it matters.
    pub fn put(&mut self, name: &str, object: &ApiIngressClass) -> bool {
        let annotations = object.metadata.annotations.as_ref();
        let default = annotations.and_then(|annotations| annotations.get(DEFAULT));
        let spec = object.spec.as_ref();
        let class = Class {
            controller: spec.and_then(|spec| spec.controller.clone()).unwrap_or_default(),
            default: default.is_some_and(|word| word == "true"),
            created: Created::read(object.metadata.creation_timestamp.as_deref()),
            parameters: spec.is_some_and(|spec| spec.parameters.is_some()),
        };
        self.by_name.insert(name.to_owned(), class.clone()).as_ref() != Some(&class)
    }

    /// A class is gone; says whether it was there.
    pub fn delete(&mut self, name: &str) -> bool {
        self.by_name.remove(name).is_some()
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// What is wrong with our classes: name, and words.
    pub fn problems(&self, options: &ClassOptions) -> Vec<(String, String)> {
        let ours = self
            .by_name
            .iter()
            .filter(|(_, class)| class.controller == options.controller);
        let ours = ours.filter(|(_, class)| class.parameters);
        let what = "has parameters, which weir does not read: the class is served without them; remove them";
        ours.map(|(name, _)| (name.clone(), what.to_owned())).collect()
    }

    /// Whose an Ingress is.
    pub fn judge(&self, ingress: &ApiIngress, options: &ClassOptions) -> Verdict {
        let annotations = ingress.metadata.annotations.as_ref();
        let annotation = annotations
            .and_then(|annotations| annotations.get(ANNOTATION))
            .filter(|name| !name.is_empty());
        let field = ingress
            .spec
            .as_ref()
            .and_then(|spec| spec.ingress_class_name.as_ref());
        let field = field.filter(|name| !name.is_empty());
        let ours = |class: &Class| class.controller == options.controller;
        match (annotation, field) {
            (Some(name), field) => {
                let known = self.by_name.get(name).map(ours);
                if !known.unwrap_or(*name == options.class) {
                    return Verdict::Others;
                }
                let other = field.filter(|field| *field != name);
                Verdict::Ours(other.map(|field| {
                    format!(
                        "annotation {ANNOTATION} is {name:?} and spec.ingressClassName is {field:?}: the annotation \
                         counts; remove it"
                    )
                }))
            }
            (None, Some(name)) => match self.by_name.get(name) {
                Some(class) if ours(class) => Verdict::Ours(None),
                Some(_) => Verdict::Others,
                None => Verdict::Gone(format!(
                    "IngressClass {name:?} is not there: not served; create it with controller {}, or correct \
                     spec.ingressClassName",
                    options.controller
                )),
            },
            (None, None) => match self.default_class() {
                Some(class) if ours(class) => Verdict::Ours(None),
                None if options.without_class => Verdict::Ours(None),
                _ => Verdict::Others,
            },
        }
    }

    /// The newest of those that say so; of one age the first by name, as the API server has it.
    fn default_class(&self) -> Option<&Class> {
        let defaults = self.by_name.values().filter(|class| class.default);
        // The last of equals is what `max_by_key` gives, so names go backwards.
        defaults.rev().max_by_key(|class| class.created)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn classes(list: &[Value]) -> Classes {
        let mut classes = Classes::default();
        for value in list {
            let class: ApiIngressClass = serde_json::from_value(value.clone()).unwrap();
            assert!(classes.put(&class.metadata.name.clone().unwrap(), &class));
            assert!(!classes.put(&class.metadata.name.clone().unwrap(), &class));
        }
        classes
    }

    fn class(name: &str, controller: &str, default: Option<&str>) -> Value {
        let mut class = json!({"metadata": {"name": name}, "spec": {"controller": controller}});
        if let Some(created) = default {
            class["metadata"]["annotations"] = json!({DEFAULT: "true"});
            class["metadata"]["creationTimestamp"] = created.into();
        }
        class
    }

    fn ingress(annotation: Option<&str>, field: Option<&str>) -> ApiIngress {
        let annotations = annotation.map(|name| json!({ANNOTATION: name}));
        serde_json::from_value(
            json!({"metadata": {"annotations": annotations}, "spec": {"ingressClassName": field}}),
        )
        .unwrap()
    }

    fn verdict(
        classes: &Classes,
        annotation: Option<&str>,
        field: Option<&str>,
        without: bool,
    ) -> &'static str {
        let options = ClassOptions {
            without_class: without,
            ..ClassOptions::default()
        };
        match classes.judge(&ingress(annotation, field), &options) {
            Verdict::Ours(None) => "ours",
            Verdict::Ours(Some(_)) => "ours, with a problem",
            Verdict::Others => "others'",
            Verdict::Gone(_) => "gone",
        }
    }

    #[test]
    fn the_class_is_named_by_field_or_annotation() {
        let classes = classes(&[
            class("edge", CONTROLLER, None),
            class("nginx", "k8s.io/ingress-nginx", None),
        ]);
        let table = [
            (None, Some("edge"), "ours"),
            (None, Some("nginx"), "others'"),
            (None, Some("missing"), "gone"),
            (Some("edge"), None, "ours"),
            // No IngressClass has this name, and it is what ours is called.
            (Some("weir"), None, "ours"),
            (Some("nginx"), None, "others'"),
            (Some("missing"), None, "others'"),
            (Some("edge"), Some("edge"), "ours"),
            (Some("edge"), Some("nginx"), "ours, with a problem"),
            (Some("nginx"), Some("edge"), "others'"),
            (Some(""), Some("edge"), "ours"),
            (Some(""), Some(""), "others'"),
        ];
        for (annotation, field, expected) in table {
            assert_eq!(
                verdict(&classes, annotation, field, false),
                expected,
                "{annotation:?} {field:?}"
            );
        }
    }

    #[test]
    fn a_class_of_another_is_not_ours_by_its_name() {
        let classes = classes(&[class(CLASS, "example.com/other", None)]);
        assert_eq!(verdict(&classes, Some(CLASS), None, false), "others'");
    }

    #[test]
    fn who_names_none_has_the_newest_default_class() {
        let (old, new) = ("2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
        let other = "example.com/other";
        let table = [
            (vec![], "others'", "ours"),
            (vec![class("a", CONTROLLER, None)], "others'", "ours"),
            (vec![class("a", CONTROLLER, Some(old))], "ours", "ours"),
            (vec![class("a", other, Some(old))], "others'", "others'"),
            (
                vec![class("a", CONTROLLER, Some(new)), class("b", other, Some(old))],
                "ours",
                "ours",
            ),
            (
                vec![class("a", CONTROLLER, Some(old)), class("b", other, Some(new))],
                "others'",
                "others'",
            ),
            (
                vec![class("a", other, Some(new)), class("b", CONTROLLER, Some(new))],
                "others'",
                "others'",
            ),
        ];
        for (list, without, with) in table {
            let classes = classes(&list);
            assert_eq!(verdict(&classes, None, None, false), without, "{list:?}");
            assert_eq!(
                verdict(&classes, None, None, true),
                with,
                "{list:?}, also without class"
            );
        }
    }

    #[test]
    fn a_class_that_is_gone_is_told() {
        let mut classes = classes(&[class("edge", CONTROLLER, None)]);
        assert!(classes.delete("edge"));
        assert!(!classes.delete("edge"));
        let Verdict::Gone(words) = classes.judge(&ingress(None, Some("edge")), &ClassOptions::default())
        else {
            panic!("gone");
        };
        assert!(
            words.contains("IngressClass \"edge\" is not there: not served"),
            "{words}"
        );
    }

    #[test]
    fn parameters_are_told() {
        let mut with = class("edge", CONTROLLER, None);
        with["spec"]["parameters"] = json!({"kind": "ConfigMap", "name": "x"});
        let problems = classes(&[with]).problems(&ClassOptions::default());
        assert_eq!(problems.len(), 1);
        assert!(problems[0].1.contains("parameters"));
    }
}
