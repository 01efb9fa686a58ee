# A module that needs no account: its one resource is a value in the state.

variable "name" {
  type        = string
  description = "Who is greeted."
}

variable "greeting" {
  type        = string
  description = "What they are told."
  default     = "Hello"
}

resource "terraform_data" "this" {
  input = "${var.greeting}, ${var.name}!"
}

output "text" {
  description = "The whole greeting."
  value       = terraform_data.this.output
}
