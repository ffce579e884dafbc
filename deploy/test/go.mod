module github.com/weir-project/weir/deploy/test

go 1.19
