package kubernetes.validating.images

deny[msg] {
  container := input.review.object.spec.containers[_]
  not startswith(container.image, "your-registry.com/")
  msg := sprintf("Image '%v' comes from an untrusted registry: %v", [container.image, "your-registry.com"])
}
