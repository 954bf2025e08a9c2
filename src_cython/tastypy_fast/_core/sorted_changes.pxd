cpdef list sorted_items(dict changes, bint numbers)
