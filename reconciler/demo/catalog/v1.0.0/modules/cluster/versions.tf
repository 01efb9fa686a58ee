terraform {
  required_version = ">= 1.9"

  required_providers {
    files = {
      source  = "reconciler/files"
      version = "~> 1.0"
    }
  }
}
