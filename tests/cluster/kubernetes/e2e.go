// Package kubernetes names what is no program of its own: Kubernetes' end-to-end tests, for `go test -c`.
package kubernetes

import _ "k8s.io/kubernetes/test/e2e"
