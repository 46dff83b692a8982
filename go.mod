module github.com/twinrail/twinrail

go 1.26
