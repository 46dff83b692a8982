package table_test

import (
	"testing"

	"github.com/twinrail/twinrail/internal/table"
	"github.com/twinrail/twinrail/internal/table/tabletest"
)

func TestMemory(t *testing.T) {
	tabletest.Run(t, func(tabletest.T) tabletest.Store { return tabletest.Store{Table: new(table.Memory)} })
}
